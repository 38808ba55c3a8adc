"""The agent of the demo: settles a ticket with a web service, a database and two command-line tools.

What lives here: an ordinary program that knows nothing of capd. What must not: anything of capd.

It finds its targets where any program would: TICKETS_URL, SSL_CERT_FILE and libpq's PG* variables.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
from decimal import Decimal
from urllib.parse import urlsplit

import psycopg

TICKET = 7


def ticket_service() -> http.client.HTTPSConnection:
    """Give one connection that all requests share (keep-alive)."""
    url = urlsplit(os.environ["TICKETS_URL"])
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    return http.client.HTTPSConnection(url.hostname or "", url.port, context=context)


def call(service: http.client.HTTPSConnection, method: str, path: str, body: object = None) -> object:
    """Send a request and give the decoded answer."""
    content = None if body is None else json.dumps(body)
    service.request(method, path, body=content, headers={"Content-Type": "application/json", "User-Agent": "demo-agent/1"})
    return json.loads(service.getresponse().read())


def refund(customer: str) -> Decimal:
    """Find a customer's double charge and pay it back; give the amount."""
    with psycopg.connect("") as database:
        payments = database.execute(
            "SELECT id, amount, paid_on FROM payments WHERE customer = %s ORDER BY id", [customer]
        ).fetchall()
        twice = payments[-1]
        database.execute("UPDATE payments SET refunded = true WHERE id = %s", [twice[0]])
    return Decimal(twice[1])


def main() -> None:
    """Read the ticket, refund, report; then look at the result with curl and psql, as agents do."""
    service = ticket_service()
    ticket = call(service, "GET", f"/v1/tickets/{TICKET}")
    if not isinstance(ticket, dict):
        raise SystemExit("the ticket service gave no ticket")
    amount = refund(str(ticket["customer"]))
    call(service, "POST", f"/v1/tickets/{TICKET}/notes", {"text": f"Refunded {amount} EUR to {ticket['customer']}."})
    service.close()

    certificate = os.environ["SSL_CERT_FILE"]
    subprocess.run(["curl", "-sS", "--cacert", certificate, os.environ["TICKETS_URL"] + "/health"], check=True)
    print(flush=True)
    question = "SELECT customer, count(*) AS paid, sum(amount) AS total FROM payments WHERE NOT refunded GROUP BY 1 ORDER BY 1"
    subprocess.run(["psql", "-X", "-c", question], check=True)


if __name__ == "__main__":
    main()
