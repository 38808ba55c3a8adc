"""Values that a name stands beside, in the ways in which names and values are written, and folded fields of a head."""

from __future__ import annotations

import pytest

from capd.enforcer.masking.place import filled, joined
from capd.enforcer.masking.scanner import Scanner
from tests.enforcer.test_masking_scanner import RULES, places

SECRET = "Zq7vKw93Lm-x4"
WRITTEN = [
    # a head that no decoder takes
    "Authorization: Bearer\r\n §\r\nHost: x",
    "Authorization:\r\n\tBearer\r\n §\r\nHost: x",
    "AUTHORIZATION\t : Basic\r\n    \r\n\t \t§\r\nHost: x",
    "Host: x\nProxy-Authorization: Basic\n §\nHost: x",
    "X-Api-Key:\r\n §\r\n\r\n",
    "Cookie: a=b;\r\n c=§\r\n\r\n",
    'Host: x\r\nCookie: a="b"; c=§\r\n\r\n',
    'Authorization: Digest username="a",\r\n  realm="b", response="§"\r\n\r\n',
    '> Authorization: Hawk id="a", mac="§"\r\n',
    # J§ON
    '{"password" :\n\t "§"}',
    '{"password":' + " " * 60 + '"§"}',
    '{"password": ["a", "§"]}',
    '{"Set-Cookie": ["a=b; Path=/", "c=§"]}',
    '{"headers": {"Authorization": [ "§" ]}}',
    '{"name":"DB_PASSWORD","value":"§"}',
    '{\\"name\\": \\"DB_PASSWORD\\",\\n   \\"value\\": \\"§\\"}',
    '{"name": "Cookie", "value": "sid=§"}',
    '[["password", "§"]]',
    '["tool", "--password", "§"]',
    '{"password": "$2b$§"}',
    '{"password": "null §"}',
    '{"password": "<a§"}',
    '{"passwordConfirmation": "§", "a": 1}',
    '{"SecretString": "§"}',
    '{"GITHUB_TOKEN": "§"}',
    '{"auths": {"h": {"auth": "§"}}}',
    # other texts
    "password                        = §",
    "- name: DB_PASSWORD\n  value: §\n",
    "password: |\n  a\n  §\n",
    "password: !!str §\n",
    'password = """a"§"""',
    "password = b'§'",
    "if password == '§':",
    'password: str = "§"',
    "os.environ['API_KEY'] = '§'",
    "[(b'password', b'§')]",
    "<Password>§</Password>",
    "<a:SecretAccessKey>§<\\/a:SecretAccessKey>",
    '<wsse:Password Type="x#PasswordText">§</wsse:Password>',
    "<password><![CDATA[§]]></password>",
    '<property name="db.password">§</property>',
    '<input name="password" value="§">',
    "NPM_TOKEN=§",
    "machine h login ann\n  password §\n",
    # parameters
    "user%5Bpassword%5D=§&a=1",
    "a=1&user[password]=§&a=1",
    "password=a(b;c,d'§&a=1",
    "next=%253Fapi_key%253D§",
    # parts of a form
    '; name="user[password]"\r\nContent-Type: text/plain; charset=UTF-8\r\nContent-Length: 3\r\n\r\na\r\n§\r\n--X--',
    "; name=access_token\r\n\r\n§\r\n--X--",
    '; name="client_secret"; filename="a"\n\n§\n--X--',
    # addresses
    "https://ann:a@§@h/",
    "https:\\/\\/ann:§@h\\/",
    "to=https%3A%2F%2Fann%3A§%40h",
    "https://§§§@github.com/a",
    # command lines
    "curl -u ann:§ https://h",
    'curl --user "ann:§" https://h',
    'tool --password "§" x',
    "sshpass -p § ssh h",
    "redis-cli -h h -a § ping",
    "mysql -uroot -p§ db",
    "docker login -u ann -p §",
    "openssl enc -pass pass:§ -in f",
    "curl -sSfu ann:§ https://h",
    "curl -uann:§ https://h",
    "curl -s --cookie sid=§ https://h",
    'curl -sb "sid=§; a=b" https://h',
    "mongosh -u ann -p § h",
    "ldapsearch -D cn=ann -w § -b x",
    "twine upload -u ann -p § dist",
    "az login -u ann -p § --tenant t",
    "kubectl create secret generic s --from-literal=conn=§",
    "aws configure set aws_secret_access_key §",
    "npm config set //h/:_authToken §",
    "set -gx API_KEY §",
    "setx API_KEY §",
    "export API_KEY=$'§'",
    # settings and statements in texts
    "_auth=§§",
    "<key>password</key>\n<string>§</string>",
    '; name="auth[token]"\r\n\r\n§\r\n--X--',
    "CREATE USER ann IDENTIFIED WITH mysql_native_password BY '§'",
    'CREATE USER ann IDENTIFIED BY \\"§\\"',
    "ALTER ROLE ann PASSWORD $x$§$x$",
    '{"userAccessToken": "§", "private_token": "§", "client_token": "§"}',
    # what stands for a password
    "root:$6$§§§§:1:",
    "SCRAM-SHA-256$4096:§§§§",
]
"""§ is the secret."""
PLAIN = [
    "docker run -u 1000:1000 image",
    "mysql -u root -p <password> -h host",
    '{"password": {"type": "string", "minLength": 8}, "required": ["name", "password"]}',
    '{"password": "${DB_PASSWORD}", "token": "{{ token }}", "secret": "<your secret>"}',
    "password:\nnext: line\n",
    "postgres://user@host/db, ssh://git@github.com/a",
    "MAX_TOKENS=100000000 no_token",
    "tokens are bought, and passwords too: none",
    "curl -b cookies.txt -u ann:8080 https://h",
    "npm config set registry https://h/",
    "every user is identified by name; set -x; the az login page",
]


@pytest.mark.parametrize("written", WRITTEN)
def test_a_value_is_hidden_however_it_is_written(written: str) -> None:
    """The value is filled, whole, also where it comes byte by byte or in two pieces."""
    said = written.replace("§", SECRET).encode()
    found = places(said)
    shown = filled(said, found)
    assert SECRET.encode() not in shown
    assert SECRET[3:].encode() not in shown
    assert found == places(said, range(1, len(said)))
    assert [found] * (len(said) // 5) == [places(said, [cut]) for cut in range(5, len(said) + 1, 5)]


@pytest.mark.parametrize("written", PLAIN)
def test_what_is_no_value_stays(written: str) -> None:
    """A placeholder, a type and a number of a user are shown."""
    assert written.encode() == filled(written.encode(), places(written.encode()))


@pytest.mark.parametrize("written", WRITTEN)
def test_a_value_that_a_gap_cuts_is_hidden(written: str) -> None:
    """No recognisable part of a value is shown before or behind bytes that are missing in it."""
    said = written.replace("§", SECRET * 6).encode()
    begin = said.rindex(SECRET.encode() * 6)
    for at in (begin + 8, begin + 40, begin + 70):
        scanner = Scanner(RULES)
        found = scanner.feed(said[:at]) + scanner.gap(1) + scanner.feed(said[at + 1 :], final=True)
        shown = filled(said, joined(found))
        assert SECRET[:7].encode() not in shown[begin:]
