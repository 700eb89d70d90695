"""A client of peerd's broker in plain Python, written from docs/protocol.md alone.

It knows the socket and the bytes; it shares no code with the project, which is its purpose: what it can do, the document
says. Run it with the socket's path; it registers two peers, sends a message from one to the other, and follows it to its
end. It prints one line per step and ends with status 0 if everything was as the document says.
"""

import os
import socket
import stat
import struct
import sys

FRAME_BYTES_MAX = 1_048_576
REPLY, PUSH = 0, 1
# Requests, replies, pushes: their numbers in the document's tables.
HELLO, REGISTER, SEND, RECEIVE, OFFERED, PRESENTED, ACK, SHOW, STATUS = 0, 1, 6, 7, 9, 10, 11, 15, 24
WELCOME, REGISTERED, DONE, SENT, RECEIVED, ACKED, SHOWN = 0, 1, 2, 5, 6, 7, 10
DELIVER = 0
ADAPTER = 0
CHANNEL, TOOL_RESULT = 0, 4
NEXT_CALL = 2
STAGES = ["stored", "leased", "offered", "presented", "held", "expired", "cancelled", "dead", "dropped",
          "relayed"]
TRACE = ["stored", "leased", "offered", "returned", "presented", "acked", "answered"]
UNKNOWN_PEER, EMPTY_TEXT, IDEMPOTENCY_CONFLICT = 2, 4, 21


def integer(number):
    """A number of any unsigned type."""
    if number <= 250:
        return bytes([number])
    for marker, size in ((0xFB, 2), (0xFC, 4), (0xFD, 8), (0xFE, 16)):
        if number < 1 << (8 * size):
            return bytes([marker]) + number.to_bytes(size, "little")
    raise ValueError(f"{number} does not fit into 16 bytes")


def string(text):
    raw = text.encode()
    return integer(len(raw)) + raw


def boolean(value):
    return b"\1" if value else b"\0"


def option(value, encode):
    return b"\0" if value is None else b"\1" + encode(value)


def listing(values, encode):
    return integer(len(values)) + b"".join(encode(value) for value in values)


class Reader:
    """Takes values from the front of a payload."""

    def __init__(self, payload):
        self.payload, self.place = payload, 0

    def take(self, count):
        if self.place + count > len(self.payload):
            raise ValueError("the payload ends within a value")
        self.place += count
        return self.payload[self.place - count : self.place]

    def integer(self):
        first = self.take(1)[0]
        if first <= 250:
            return first
        sizes = {0xFB: 2, 0xFC: 4, 0xFD: 8, 0xFE: 16}
        return int.from_bytes(self.take(sizes[first]), "little")

    def boolean(self):
        return {0: False, 1: True}[self.take(1)[0]]

    def string(self):
        return self.take(self.integer()).decode()

    def option(self, decode):
        return decode() if self.boolean() else None

    def listing(self, decode):
        return [decode() for _ in range(self.integer())]

    def end(self):
        if self.place != len(self.payload):
            raise ValueError(f"{len(self.payload) - self.place} bytes follow the value")


class Refused(Exception):
    """The broker said no."""

    def __init__(self, reader):
        self.code = reader.integer()
        self.message, self.hint = reader.string(), reader.string()
        self.retry_after_ms = reader.option(reader.integer)
        super().__init__(f"{self.message}; {self.hint}")


class Client:
    """One connection."""

    def __init__(self, path):
        for place, mode in ((os.path.dirname(path), 0o700), (path, 0o600)):
            status = os.lstat(place)
            if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) != mode:
                raise PermissionError(f"{place} has mode {status.st_mode:o} and owner {status.st_uid}")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(20)
        self.socket.connect(path)
        self.next_id, self.replies, self.pushes = 1, {}, []
        software = b"0.0.1 wire_client.py"
        self.socket.sendall(b"PEERD\0" + struct.pack("<HHIH", 1, 1, 0, len(software)) + software)
        magic, low, high, _features, count = struct.unpack("<6sHHIH", self.exactly(16))
        if magic != b"PEERD\0" or not low <= 1 <= high or count > 1_024:
            raise ValueError(f"no broker of protocol 1: {magic} {low} {high}")
        self.software = self.exactly(count).decode()

    def exactly(self, count):
        parts = []
        while count:
            part = self.socket.recv(count)
            if not part:
                raise ConnectionError("the broker ended the connection")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def submit(self, number, body=b""):
        """Sends a request; returns its id."""
        id, self.next_id = self.next_id, self.next_id + 1
        payload = integer(id) + integer(number) + body
        self.socket.sendall(struct.pack("<I", len(payload)) + payload)
        return id

    def read_frame(self):
        (length,) = struct.unpack("<I", self.exactly(4))
        if not 0 < length <= FRAME_BYTES_MAX:
            raise ValueError(f"a frame of {length} bytes")
        reader = Reader(self.exactly(length))
        if reader.integer() == REPLY:
            id = reader.integer()
            self.replies[id] = reader
        else:
            self.pushes.append(reader)

    def answer(self, id, expected):
        """Waits for the reply to a request; returns a reader of that reply's fields."""
        while id not in self.replies:
            self.read_frame()
        reader = self.replies.pop(id)
        if reader.integer() == 1:
            raise Refused(reader)
        number = reader.integer()
        if number != expected:
            raise ValueError(f"reply {number} came where {expected} should")
        return reader

    def request(self, number, body, expected):
        return self.answer(self.submit(number, body), expected)

    def hello(self):
        body = integer(ADAPTER) + string("0.0.1") + string(os.path.abspath(__file__)) + option(None, None)
        reader = self.request(HELLO, body, WELCOME)
        welcome = {"version": reader.string(), "executable": reader.string(), "pid": reader.integer()}
        welcome["authority"] = reader.integer()
        if welcome["authority"] == 1:
            reader.option(reader.string)
        reader.end()
        return welcome

    def register(self, name, resume=None):
        body = option(name, string) + option(None, None)
        body += string("wire") + string("0.0.1") + integer(os.getpid()) + string(os.getcwd())
        body += option(None, None) + option(None, None) + string("here")
        body += option(resume, lambda pair: integer(pair[0]) + pair[1])
        reader = self.request(REGISTER, body, REGISTERED)
        registered = {"peer": reader.integer(), "name": reader.string(), "token": reader.take(32)}
        registered["takes_mail"] = reader.boolean()
        registered["notice"] = reader.option(reader.string)
        registered["waiting"] = reader.integer()
        registered["inbox_socket_in_bypass"] = reader.boolean()
        reader.end()
        return registered

    def send(self, to, text, reply_to=None, idempotency_key=None):
        body = listing(to, string) + string(text) + option(None, None) + option(reply_to, integer)
        body += option(None, None) + option(None, None) + listing([], string) + option(idempotency_key, string)
        reader = self.request(SEND, body, SENT)
        sent = {"message": reader.integer(), "thread": reader.string(), "deduplicated": reader.boolean()}

        def delivery():
            one = {"peer": reader.integer(), "name": reader.string(), "stage": reader.option(reader.integer)}
            one["online"] = reader.boolean()
            one["carriers"] = reader.listing(lambda: (reader.integer(), reader.option(reader.integer)))
            one["activity"] = reader.option(reader.integer)
            one["refusal"] = reader.option(lambda: Refused(reader))
            return one

        sent["deliveries"] = reader.listing(delivery)
        reader.end()
        return sent

    def deliver(self):
        """Waits for the next message that is pushed."""
        while True:
            while not self.pushes:
                self.read_frame()
            reader = self.pushes.pop(0)
            if reader.integer() == DELIVER:
                break
        message = read_message(reader)
        message["attempts"], message["shown_before"] = reader.integer(), reader.boolean()
        reader.end()
        return message

    def receive(self):
        """The barrier: what was stored before has been pushed when this returns. Empty filter, no waiting."""
        reader = self.request(RECEIVE, b"\0" * 4 + boolean(False), RECEIVED)
        held, waiting = reader.listing(reader.integer), reader.integer()
        reader.end()
        return held, waiting

    def offered(self, ids, carrier, last):
        self.request(OFFERED, listing(ids, integer) + integer(carrier) + boolean(last), DONE).end()

    def presented(self, ids, carrier, evidence):
        self.request(PRESENTED, listing(ids, integer) + integer(carrier) + integer(evidence), DONE).end()

    def ack(self, ids):
        reader = self.request(ACK, listing(ids, integer), ACKED)
        acked, unknown = reader.listing(reader.integer), reader.listing(reader.integer)
        reader.end()
        return acked, unknown

    def show(self, id):
        reader = self.request(SHOW, integer(id), SHOWN)
        shown = {"message": read_message(reader)}

        def entry():
            event, at = reader.integer(), reader.integer()
            carrier = reader.option(reader.integer)
            # Of the causes only number 0 carries something: the evidence.
            cause = reader.option(lambda: (reader.integer(),))
            if cause == (0,):
                reader.integer()
            return {"event": event, "at": at, "carrier": carrier}

        def there():
            stage, at, rev = STAGES[reader.integer()], reader.integer(), reader.integer()
            return stage, at, rev, reader.option(reader.integer), reader.option(reader.integer)

        def delivery():
            one = {"peer": reader.integer(), "name": reader.string(), "stage": STAGES[reader.integer()]}
            one["attempts"] = reader.integer()
            one["acked_at"], one["answered_by"] = reader.option(reader.integer), reader.option(reader.integer)
            one["trace"] = reader.listing(entry)
            one["there"] = reader.option(there)
            return one

        shown["deliveries"] = reader.listing(delivery)
        reader.end()
        return shown


def read_message(reader):
    message = {"id": reader.integer(), "from_peer": reader.integer(), "from": reader.string()}
    message["client"], message["cwd"], message["via"] = reader.string(), reader.string(), reader.integer()
    message["to"] = reader.listing(reader.string)
    message["intent"], message["kind"], message["thread"] = reader.integer(), reader.integer(), reader.string()
    message["channel"] = reader.option(reader.string)
    message["reply_to"] = reader.option(reader.integer)
    message["sent_at"], message["expires_at"] = reader.integer(), reader.option(reader.integer)
    message["sources"], message["text"] = reader.listing(reader.string), reader.string()
    return message


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def refused(code, act):
    try:
        act()
    except Refused as why:
        check(why.code == code, f"refused with code {why.code} ({why}), not {code}")
        check(why.message != "", "a refusal without a sentence")
        return
    raise AssertionError(f"not refused, though code {code} was due")


def main(path):
    # Two sessions.
    luna, orion = Client(path), Client(path)
    for client in (luna, orion):
        welcome = client.hello()
        check(client.software.startswith(welcome["version"] + " "), "preface and welcome name different versions")
        check(welcome["authority"] == 2, f"an adapter's authority is {welcome['authority']}")
    print("hello: broker", welcome["version"], "pid", welcome["pid"])
    me, other = luna.register("luna"), orion.register("orion")
    check((me["name"], other["name"]) == ("luna", "orion"), f"registered as {me['name']} and {other['name']}")
    check(me["takes_mail"] and other["takes_mail"], "a first session takes its mail")
    print("register: luna is peer", me["peer"], "and orion is peer", other["peer"])

    # Send, with a text of every length class and every kind of character.
    text = "bcrypt version? \u00e9\u4e16\U0001f600\n" + "x" * 300
    sent = luna.send(["orion"], text, idempotency_key="first")
    check([one["name"] for one in sent["deliveries"]] == ["orion"], f"sent to {sent['deliveries']}")
    check(sent["deliveries"][0]["refusal"] is None and sent["deliveries"][0]["online"], "a refused or offline delivery")
    again = luna.send(["orion"], text, idempotency_key="first")
    check(again["deduplicated"] and again["message"] == sent["message"], "a repeat under its key is a new message")
    refused(IDEMPOTENCY_CONFLICT, lambda: luna.send(["orion"], "something else", idempotency_key="first"))
    refused(UNKNOWN_PEER, lambda: luna.send(["nobody"], text))
    refused(EMPTY_TEXT, lambda: luna.send(["orion"], ""))
    print("send: message", sent["message"], "on thread", sent["thread"])

    # Deliver: once.
    message = orion.deliver()
    check(message["id"] == sent["message"] and message["text"] == text, f"delivered {message}")
    check(message["from"] == "luna" and message["from_peer"] == me["peer"] and message["via"] == 0, "another sender")
    check(message["attempts"] == 0 and not message["shown_before"], "a first delivery that was shown before")
    held, waiting = orion.receive()
    check(held == [message["id"]] and waiting == 1, f"holds {held}, {waiting} waiting")
    check(not orion.pushes, "pushed twice")
    print("deliver: orion has it, from", message["from"])

    # Offered, then presented, then acknowledged.
    orion.offered([message["id"]], TOOL_RESULT, True)
    check(luna.show(message["id"])["deliveries"][0]["stage"] == "offered", "not offered")
    orion.presented([message["id"]], TOOL_RESULT, NEXT_CALL)
    check(luna.show(message["id"])["deliveries"][0]["stage"] == "presented", "not presented")
    acked, unknown = orion.ack([message["id"], 12_345])
    check((acked, unknown) == ([message["id"]], [12_345]), f"acked {acked}, unknown {unknown}")
    print("presented and acked")

    # The answer; then a session that ends and comes back gets what it had not settled, and nothing else.
    answer = orion.send([], "5.1.1", reply_to=message["id"])
    check([one["name"] for one in answer["deliveries"]] == ["luna"], "a reply goes to the sender")
    check(luna.deliver()["reply_to"] == message["id"], "an answer without its question")
    luna.offered([answer["message"]], CHANNEL, False)
    luna.socket.close()
    luna = Client(path)
    luna.hello()
    back = luna.register(None, resume=(me["peer"], me["token"]))
    check((back["peer"], back["name"]) == (me["peer"], "luna"), f"came back as {back['name']}")
    message = luna.deliver()
    check(message["id"] == answer["message"] and message["shown_before"], "the repeat does not say that it is one")
    luna.ack([message["id"]])
    check(luna.receive() == ([], 0), "something settled came again")
    print("resume: luna came back, the answer came again and said so")

    shown = orion.show(sent["message"])["deliveries"][0]
    events = [TRACE[entry["event"]] for entry in shown["trace"] if entry["event"] < len(TRACE)]
    for event in ("stored", "offered", "presented", "acked", "answered"):
        check(event in events, f"no {event} in the trace {events}")
    check(shown["answered_by"] == answer["message"], "answered by another message")
    print("trace:", " ".join(events))

    # Pipelined requests are answered each by its id.
    ids = [luna.submit(STATUS) for _ in range(50)]
    for id in reversed(ids):
        luna.answer(id, 14)

    # Bytes that mean nothing end this connection and no other.
    luna.socket.sendall(struct.pack("<I", 3) + b"\x09\xf0\x00")
    try:
        luna.answer(0, DONE)
        raise AssertionError("garbage was accepted")
    except Refused as why:
        check(why.code == 0, f"garbage is refused with code {why.code}")
    try:
        luna.read_frame()
        raise AssertionError("the connection lives on after garbage")
    except ConnectionError:
        pass
    check(orion.receive() == ([], 0), "another connection noticed")
    print("garbage: refused, and only its connection ended")


if __name__ == "__main__":
    main(sys.argv[1])
    print("ok")
