"""Programs with one library of HTTP each, as agents write them: nothing in them knows of a proxy or of an authority.

What lives here: the programs. What must not: what is expected.

Each takes the URL of the server, fetches a blob, sends it and takes it back, then asks for what is denied. It prints the two
hashes, and status and body of the refusal.
"""

from __future__ import annotations

from typing import Final

_PYTHON: Final = """
import hashlib, sys
BASE = sys.argv[1]
def said(fetched, echoed, status, refusal):
    print(hashlib.sha256(fetched).hexdigest(), hashlib.sha256(echoed).hexdigest(), status, refusal, flush=True)
"""
REQUESTS: Final = (
    _PYTHON
    + """
import requests
with requests.Session() as session:
    blob = session.get(BASE + "/open/blob").content
    echoed = session.post(BASE + "/echo", data=iter([blob[:70000], blob[70000:]])).content
    denied = session.get(BASE + "/secret")
    said(blob, echoed, denied.status_code, denied.json()["message"])
"""
)
HTTPX: Final = (
    _PYTHON
    + """
import httpx
with httpx.Client(timeout=60) as client:
    blob = client.get(BASE + "/open/blob").content
    echoed = client.put(BASE + "/echo", content=blob).content
    denied = client.get(BASE + "/secret")
    said(blob, echoed, denied.status_code, denied.json()["message"])
"""
)
AIOHTTP: Final = (
    _PYTHON
    + """
import aiohttp, asyncio
async def main():
    async with aiohttp.ClientSession() as session:
        async with session.get(BASE + "/open/blob") as answer: blob = await answer.read()
        async with session.post(BASE + "/echo", data=blob) as answer: echoed = await answer.read()
        async with session.get(BASE + "/secret") as answer: said(blob, echoed, answer.status, (await answer.json())["message"])
asyncio.run(main())
"""
)
URLLIB: Final = (
    _PYTHON
    + """
import json, urllib.error, urllib.request
blob = urllib.request.urlopen(BASE + "/open/blob").read()
echoed = urllib.request.urlopen(BASE + "/echo", data=blob).read()
try: urllib.request.urlopen(BASE + "/secret")
except urllib.error.HTTPError as denied: said(blob, echoed, denied.code, json.load(denied)["message"])
"""
)
NODE: Final = """
const base = process.argv[1]
const digest = (data) => require('crypto').createHash('sha256').update(Buffer.from(data)).digest('hex')
const main = async () => {
  const blob = await (await fetch(base + '/open/blob')).arrayBuffer()
  const echoed = await (await fetch(base + '/echo', { method: 'POST', body: blob })).arrayBuffer()
  const denied = await fetch(base + '/secret')
  console.log(digest(blob), digest(echoed), denied.status, (await denied.json()).message)
}
main().catch(error => { console.error(error); process.exit(1) })
"""
JAVA: Final = """
import java.net.URI;
import java.net.http.*;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.MessageDigest;
import java.util.HexFormat;

public class Client {
    static String digest(byte[] data) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
    }

    static HttpRequest get(String uri) {
        return HttpRequest.newBuilder(URI.create(uri)).build();
    }

    public static void main(String[] words) throws Exception {
        var client = HttpClient.newHttpClient();
        var blob = client.send(get(words[0] + "/open/blob"), BodyHandlers.ofByteArray()).body();
        var sent = HttpRequest.newBuilder(URI.create(words[0] + "/echo")).POST(HttpRequest.BodyPublishers.ofByteArray(blob));
        var echoed = client.send(sent.build(), BodyHandlers.ofByteArray()).body();
        var answer = client.send(get(words[0] + "/secret"), BodyHandlers.ofString());
        System.out.println(digest(blob) + " " + digest(echoed) + " " + answer.statusCode() + " " + answer.body());
    }
}
"""
WEBSOCKETS: Final = """
import sys, websockets.exceptions
from websockets.sync.client import connect
with connect(sys.argv[1] + "/ws", max_size=None, open_timeout=60) as socket:
    for message in ("a word", bytes(range(256)) * 1000):
        socket.send(message)
        assert message == socket.recv()
try: connect(sys.argv[1] + "/secret", open_timeout=60)
except websockets.exceptions.InvalidStatus as denied: print(denied.response.status_code, denied.response.body.decode())
"""
EVENTS: Final = """
import sys, httpx
with httpx.Client(timeout=60) as client, client.stream("GET", sys.argv[1] + "/events") as answer:
    for line in answer.iter_lines():
        if line.startswith("data: "):
            client.get(sys.argv[1] + "/heard")
            print(line)
"""
"""Says of each event that it came; the server sends the next one then."""
