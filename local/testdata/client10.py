# An application with stomp.py and an older version of STOMP: it sends a
# message and waits for the receipt, and acknowledges two messages by their
# message-id. It prints what it gets.
import queue
import sys

try:
    import stomp

    stomp.Connection10
except (ImportError, AttributeError):
    sys.exit(77)  # not installed

version, host, port, passcode, destination = sys.argv[1:]
receipts, messages = queue.Queue(), queue.Queue()


class Listener(stomp.ConnectionListener):
    def on_connected(self, frame):
        print("version", frame.headers["version"])

    def on_receipt(self, frame):
        receipts.put("receipt " + frame.headers["receipt-id"])

    def on_message(self, frame):
        messages.put(frame)

    def on_error(self, frame):
        receipts.put("error " + frame.body)


def print_receipt():
    print(receipts.get(timeout=10))


kind = {"1.0": stomp.Connection10, "1.1": stomp.Connection}[version]
connection = kind([(host, int(port))])
connection.set_listener("", Listener())
connection.connect("app", passcode, wait=True)
connection.send(destination, '{"a:b": "c\\\\d"}', content_type="application/json; charset=utf-8",
                headers={"type": "AccountUpdate", "receipt": "sent:1\\"})
print_receipt()
if version == "1.0":
    connection.subscribe("/queue/accounts_in", ack="client")
else:
    connection.subscribe("/queue/accounts_in", id="a:b", ack="client-individual")
for i in range(2):
    message = messages.get(timeout=10)
    print("message", message.body, message.headers["type"], message.headers["redelivered"])
    if version == "1.0":
        connection.ack(message.headers["message-id"], receipt="ack")
    else:
        connection.ack(message.headers["message-id"], "a:b", receipt="ack")
    print_receipt()
if version == "1.0":
    connection.unsubscribe("/queue/accounts_in")
else:
    connection.unsubscribe(id="a:b")
connection.disconnect(receipt="bye")
print_receipt()
