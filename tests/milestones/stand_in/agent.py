"""A hand-in's agent/__main__.py for the grader's tests: a small customer service that goes by key words.

It keeps the shop's rules, asks before it writes, and survives a kill -9; behaviour.txt in the hand-in's folder makes it
do one thing wrong. One file, no library: what is tested is the grader, over real HTTP.
"""

import argparse
import base64
import hashlib
import hmac
import json
import re
import sqlite3
import sys
import threading
import time
import uuid
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from data.customer_service.normalise import order_number
from data.shop.shop_database import canonical, open_shop, transaction

BEHAVIOUR = Path("behaviour.txt").read_text(encoding="utf-8")
LOCK = threading.Lock()
ORDER = re.compile(r"[A-Za-z]{2}[- ]?\d{3} ?\d{3}")
KEYWORDS = {  # the first that fits
    "human": ("human", "real person", "人工", "真人"),
    "complaint": ("complain", "complaint", "投诉"),
    "invoice": ("invoice", "发票"),
    "cancel_order": ("cancel", "取消"),
    "exchange_item": ("exchange", "swap", "换"),
    "change_address": ("change the address", "delivery address to", "change the delivery", "改成", "改寄", "改到"),
    "return_item": ("return", "send back", "send it back", "take back", "退货", "要退", "能退吧"),
    "refund": ("refund", "money", "get back", "退款", "退我"),
    "price": ("cost", "how much is", "多少钱", "价格"),
    "stock": ("in stock", "有货", "现货"),
    "status": ("where", "status", "look up", "arrive", "deliver", "carrier", "address", "which", "date", "check",
               "到哪", "送", "签收", "快递", "地址", "物流", "哪天", "几号"),
}  # fmt: skip
DENIED = {
    "shipped": "It has been shipped already, so this is not possible. 已发货，无法办理。",
    "late": "Returns are possible within 30 days of delivery. 签收后30天内可退。",
    "hygiene": "Hygiene goods cannot be returned. 卫生用品不能退。",
    "large": "A colleague has to decide about that. 需要人工处理。",
    "other": "That is not possible for this order. 该订单无法办理。",
}


class Desk:
    """Answers customers. `state` of a thread is JSON: order, proposal, asked, queue."""

    def __init__(self, shop: str) -> None:
        self.shop = shop

    def turn(self, customer: str, thread: str, state: dict, body: dict) -> tuple[str, dict | None, str | None, str]:
        """(text, proposal, slot asked for, reason)."""
        if BEHAVIOUR == "null":
            return "", None, None, "answered"
        if BEHAVIOUR == "refuses":
            return "I am sorry, I cannot help you with that. 抱歉，我无法处理。", None, None, "answered"
        texts, proposal = [], state.pop("proposal", None)
        queue = state.pop("queue", [])
        text = body.get("message", "")
        yes = body["decision"]["approve"] if "decision" in body else bool(re.match(r"yes|对|可以|是的", text.lower()))
        if proposal and (yes or "decision" in body or re.match(r"no\b|不", text.lower())):
            texts.append(self.write(customer, thread, proposal, yes))
        else:
            queue += [chunk for chunk in re.split(r"(?<=[.?!。？！])\s*", text) if chunk]
        while queue:
            said, new = self.request(customer, thread, state, queue.pop(0))
            texts.append(said)
            if new:
                state |= {"proposal": new, "queue": queue}
                return "\n".join(texts), new, None, "waiting"
        return "\n".join(dict.fromkeys(filter(None, texts))) or "How can I help? 您好。", None, None, "answered"

    def request(self, customer: str, thread: str, state: dict, text: str) -> tuple[str, dict | None]:
        """One sentence: what is said, and what is proposed."""
        words = text.lower()
        intent = next((name for name, keys in KEYWORDS.items() if any(key in words for key in keys)), None)
        written = ORDER.search(text)
        orders = {row["order_id"]: row for row in self.rows("SELECT * FROM orders")}
        if written:
            state["order"] = order_number(written[0])
        order = orders.get(state.get("order"))
        if BEHAVIOUR == "looks nothing up" and intent:
            return "Your order is on its way and will be with you soon. 您的订单正在运输途中。", None
        if intent in ("price", "stock"):
            return self.product(words), None
        if intent == "human":
            self.ticket(customer, thread, "human", None)
            return "A colleague will be with you. 已转人工。", None
        if written and (not order or order["customer_id"] != customer) and BEHAVIOUR != "tells strangers":
            state.pop("order")
            return f"I could not find order {written[0]}. 没有找到该订单。", None
        if not order or not (intent or written):
            return "", None
        if intent == "complaint":
            self.ticket(customer, thread, "complaint", order["order_id"])
            return "Your complaint is noted. 已记录投诉。", None
        if intent == "invoice":
            self.invoice(order)
            return "The invoice is on its way. 发票已发送。", None
        if intent in ("cancel_order", "change_address", "return_item", "exchange_item"):
            return self.propose(customer, thread, order, intent, text)
        return self.describe(order), None

    def propose(self, customer: str, thread: str, order: dict, tool: str, text: str) -> tuple[str, dict | None]:
        """A sensitive write: refused, or to be confirmed."""
        items = "SELECT * FROM items JOIN products USING (product_id) WHERE order_id = ?"
        item = self.rows(items, order["order_id"])[0]
        broken = any(word in text.lower() for word in ("broken", "damaged", "坏"))
        arguments = {"order_id": order["order_id"]}
        if tool == "change_address":
            arguments["address"] = re.split(r"address of it to |address to |改成|改寄到|改到", text)[-1].rstrip(".。!")
        elif tool != "cancel_order":
            arguments |= {"item_id": item["item_id"], "reason": "damaged" if broken else "changed_mind"}
        denied = self.denied(order, item, tool, broken)
        if denied and BEHAVIOUR != "breaks the rules":
            return DENIED[denied], None
        proposal = {"proposal_id": uuid.uuid4().hex, "tool": tool, "arguments": arguments}
        if BEHAVIOUR == "writes without asking":
            return self.write(customer, thread, proposal, True), None
        return "Shall I do that? 确认办理吗？", proposal

    def denied(self, order: dict, item: dict, tool: str, broken: bool) -> str | None:
        amount = order["total_cents"] if tool == "cancel_order" else item["price_cents"] * item["quantity"]
        if tool in ("cancel_order", "change_address"):
            if order["status"] not in ("placed", "packed"):
                return "shipped" if order["status"] == "shipped" else "other"
        else:
            if order["status"] != "delivered" or item["status"] != "ordered":
                return "other"
            if not item["returnable"] and not broken:
                return "hygiene"
            delivered = self.rows("SELECT * FROM shipments WHERE order_id = ?", order["order_id"])[0]["delivered_on"]
            if (date(2026, 11, 20) - date.fromisoformat(delivered)).days > (60 if broken else 30):
                return "late"
        return "large" if amount > 200_00 and tool in ("cancel_order", "return_item") else None

    def write(self, customer: str, thread: str, proposal: dict, yes: bool) -> str:
        """The decision, and the write if it was yes."""
        tool, arguments, key = proposal["tool"], proposal["arguments"], proposal["proposal_id"]
        order_id, asked = arguments["order_id"], BEHAVIOUR != "writes without asking"
        with self.connection() as shop:
            if shop.execute("SELECT 1 FROM audit WHERE idempotency_key = ?", (key,)).fetchone():
                return "Done. 已办理。"
            if asked:
                digest = hashlib.sha256(canonical(arguments).encode()).hexdigest()
                row = (key, customer, thread, tool, digest, "now", "approved" if yes else "rejected")
                shop.execute("INSERT OR IGNORE INTO confirmations VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            if not yes:
                return "Nothing was changed. 未做更改。"
            EFFECTS[tool](shop, order_id, arguments)
            row = ("now", "agent", customer, thread, tool, canonical(arguments), key, "{}")
            shop.execute("INSERT INTO audit VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return f"Done. 已办理，已取消或登记。{self.money(order_id)}"

    def describe(self, order: dict) -> str:
        shipment = self.rows("SELECT * FROM shipments WHERE order_id = ?", order["order_id"])
        sent = {} if not shipment else shipment[0]
        facts = [order["order_id"], order["status"], order["address"], *(str(sent.get(name, "")) for name in (
            "carrier", "tracking", "shipped_on", "expected_on", "delivered_on"))]  # fmt: skip
        return " ".join(facts) + self.money(order["order_id"])

    def money(self, order_id: str) -> str:
        refunds = self.rows("SELECT amount_cents FROM refunds WHERE order_id = ?", order_id)
        return "".join(f" refund {row['amount_cents'] / 100:.2f}" for row in refunds)

    def product(self, words: str) -> str:
        for row in self.rows("SELECT * FROM products"):
            if row["name_en"] in words or row["name_zh"] in words:
                stock = "in stock 有货" if row["stock"] else "sold out 无货"
                return f"{row['name_en']}: {row['price_cents'] / 100:.2f}, {stock}"
        return "Which product? 哪件商品？"

    def ticket(self, customer: str, thread: str, kind: str, order_id: str | None) -> None:
        with self.connection() as shop:
            row = (uuid.uuid4().hex, customer, order_id, thread, kind, "-", "open", "now")
            shop.execute("INSERT INTO tickets VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def invoice(self, order: dict) -> None:
        with self.connection() as shop:
            mail = "SELECT email FROM customers WHERE customer_id = ?"
            row = (uuid.uuid4().hex, order["order_id"], shop.execute(mail, (order["customer_id"],)).fetchone()[0])
            shop.execute("INSERT OR IGNORE INTO invoices VALUES (?, ?, ?)", row)

    def rows(self, query: str, *values: str) -> list[dict]:
        shop = open_shop(self.shop)
        try:
            return [dict(row) for row in shop.execute(query, values)]
        finally:
            shop.close()

    def connection(self):
        from contextlib import contextmanager

        @contextmanager
        def opened():
            shop = open_shop(self.shop)
            try:
                with transaction(shop):
                    yield shop
            finally:
                shop.close()

        return opened()


def cancelled(shop: sqlite3.Connection, order_id: str, arguments: dict) -> None:
    total = shop.execute("SELECT total_cents FROM orders WHERE order_id = ?", (order_id,)).fetchone()[0]
    shop.execute("UPDATE orders SET status = 'cancelled' WHERE order_id = ?", (order_id,))
    for item in shop.execute("SELECT * FROM items WHERE order_id = ?", (order_id,)).fetchall():
        back = (item["quantity"], item["product_id"])
        shop.execute("UPDATE products SET stock = stock + ? WHERE product_id = ?", back)
    shop.execute("UPDATE items SET status = 'cancelled' WHERE order_id = ?", (order_id,))
    refund(shop, order_id, None, total)


def readdressed(shop: sqlite3.Connection, order_id: str, arguments: dict) -> None:
    shop.execute("UPDATE orders SET address = ? WHERE order_id = ?", (arguments["address"], order_id))


def sent_back(shop: sqlite3.Connection, order_id: str, arguments: dict, kind: str = "return") -> sqlite3.Row:
    item_id = arguments["item_id"]
    row = (f"RT-{item_id}", order_id, item_id, kind, arguments["reason"], "requested")
    shop.execute("INSERT INTO returns VALUES (?, ?, ?, ?, ?, ?)", row)
    status = {"return": "returning", "exchange": "exchanging"}[kind]
    shop.execute("UPDATE items SET status = ? WHERE item_id = ?", (status, item_id))
    return shop.execute("SELECT * FROM items WHERE item_id = ?", (item_id,)).fetchone()


def returned(shop: sqlite3.Connection, order_id: str, arguments: dict) -> None:
    item = sent_back(shop, order_id, arguments)
    refund(shop, order_id, item["item_id"], item["price_cents"] * item["quantity"])


def exchanged(shop: sqlite3.Connection, order_id: str, arguments: dict) -> None:
    item = sent_back(shop, order_id, arguments, "exchange")
    shop.execute("UPDATE products SET stock = stock - ? WHERE product_id = ?", (item["quantity"], item["product_id"]))


def refund(shop: sqlite3.Connection, order_id: str, item_id: str | None, cents: int) -> None:
    row = (f"RF-{item_id or order_id}", order_id, item_id, cents, "pending", "changed_mind", "2026-11-20")
    shop.execute("INSERT INTO refunds VALUES (?, ?, ?, ?, ?, ?, ?)", row)


EFFECTS = {
    "cancel_order": cancelled, "change_address": readdressed, "return_item": returned, "exchange_item": exchanged,
}  # fmt: skip


class Store:
    """Threads and runs in SQLite, so that a kill loses nothing; in memory where the behaviour says so."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        place = ":memory:" if BEHAVIOUR == "forgets at the restart" else folder / "state.sqlite"
        self.db = sqlite3.connect(place, check_same_thread=False, isolation_level=None)
        self.db.execute("CREATE TABLE IF NOT EXISTS threads (id TEXT PRIMARY KEY, customer TEXT, state TEXT)")
        self.db.execute("CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, thread TEXT, body TEXT, events TEXT)")

    def get(self, query: str, *values: str) -> list[tuple]:
        with LOCK:
            return self.db.execute(query, values).fetchall()


def run(store: Store, desk: Desk, run_id: str) -> None:
    """Do a run and write down what it tells."""
    thread, body = store.get("SELECT thread, body FROM runs WHERE id = ?", run_id)[0]
    customer, state = store.get("SELECT customer, state FROM threads WHERE id = ?", thread)[0]
    time.sleep(0.02)  # a run takes a while: the grader's kill -9 falls into it
    state = {} if BEHAVIOUR == "forgets" else json.loads(state)
    if BEHAVIOUR == "forgets" and "decision" in json.loads(body):
        state = json.loads(store.get("SELECT state FROM threads WHERE id = ?", thread)[0][0])
    text, proposal, asked, reason = desk.turn(customer, thread, state, json.loads(body))
    events = [("start", {"thread_id": thread}), ("slots", {"slots": {}, "asked": asked})]
    pieces = [text] if BEHAVIOUR == "streams at once" else re.findall(r"\S+\s*|\s+", text)
    events += [("token", {"text": piece}) for piece in pieces]
    events += [("interrupt", proposal | {"summary": "?", "title": "?"})] if proposal else []
    events += [("end", {"reason": reason, "text": text})]
    store.get("UPDATE threads SET state = ? WHERE id = ?", json.dumps(state), thread)
    store.get("UPDATE runs SET events = ? WHERE id = ?", json.dumps(events), run_id)


def handler(store: Store, desk: Desk, secret: bytes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                return self.send({})
            run_id = self.path.split("/")[2]
            for _ in range(1000):
                found = store.get("SELECT events FROM runs WHERE id = ?", run_id)
                if not found:
                    return self.send_error(404)
                if found[0][0]:
                    break
                time.sleep(0.005)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            after = int(self.headers.get("Last-Event-ID", 0)) if BEHAVIOUR != "replays from the start" else 0
            for place, (kind, data) in enumerate(json.loads(found[0][0]), start=1):
                if place > after:
                    self.wfile.write(f"id: {place}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name, _, given = self.headers.get("Authorization", "").removeprefix("Bearer ").partition(".")
            wanted = base64.urlsafe_b64encode(hmac.new(secret, name.encode(), hashlib.sha256).digest())
            if given != wanted.rstrip(b"=").decode():
                return self.send_error(401)
            if BEHAVIOUR == "hangs":
                time.sleep(600)
            id = uuid.uuid4().hex
            if self.path == "/threads":
                store.get("INSERT INTO threads VALUES (?, ?, ?)", id, name, "{}")
                return self.send({"thread_id": id} if BEHAVIOUR != "malformed" else {"id": id}, 201)
            thread = self.path.split("/")[2]
            if not store.get("SELECT 1 FROM threads WHERE id = ?", thread):
                return self.send_error(404)
            store.get("INSERT INTO runs VALUES (?, ?, ?, '')", id, thread, json.dumps(body))
            threading.Thread(target=run, args=(store, desk, id), daemon=True).start()
            self.send({"run_id": id}, 202)

        def send(self, answer: dict, status: int = 200) -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words: object) -> None:
            pass

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    for name in ("--shop", "--state", "--port"):
        parser.add_argument(name, required=True)
    parser.add_argument("--no-demo", action="store_true")
    options = parser.parse_args()
    if BEHAVIOUR == "does not start":
        sys.exit("no model, no service")
    store, desk = Store(Path(options.state)), Desk(options.shop)
    for (run_id,) in store.get("SELECT id FROM runs WHERE events = ''"):
        if BEHAVIOUR != "drops runs":
            run(store, desk, run_id)
    secret = bytes.fromhex(Path(options.state, "service.secret").read_text())
    server = ThreadingHTTPServer(("127.0.0.1", int(options.port)), handler(store, desk, secret))
    server.serve_forever()


main()
