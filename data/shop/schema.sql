-- The shop. Amounts are in cents, dates are ISO 8601; the shop's own date is meta.today, so that "within 30 days" does
-- not change its meaning while the course grows older. Times (`at`, `created_at`, `decided_at`) are real ones, in UTC.

CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

CREATE TABLE customers (
    customer_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    email TEXT NOT NULL UNIQUE,
    phone TEXT NOT NULL,
    language TEXT NOT NULL CHECK (language IN ('en', 'zh')),
    tier TEXT NOT NULL CHECK (tier IN ('basic', 'plus'))
) STRICT;

CREATE TABLE products (
    product_id TEXT PRIMARY KEY,
    name_en TEXT NOT NULL UNIQUE,
    name_zh TEXT NOT NULL UNIQUE,
    aliases TEXT NOT NULL DEFAULT '[]',  -- JSON list: other names, in either language
    price_cents INTEGER NOT NULL CHECK (price_cents > 0),
    stock INTEGER NOT NULL CHECK (stock >= 0),
    category TEXT NOT NULL,
    returnable INTEGER NOT NULL CHECK (returnable IN (0, 1))
) STRICT;

CREATE TABLE orders (
    order_id TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL REFERENCES customers,
    status TEXT NOT NULL CHECK (status IN ('placed', 'packed', 'shipped', 'delivered', 'cancelled')),
    placed_on TEXT NOT NULL,
    address TEXT NOT NULL,
    total_cents INTEGER NOT NULL CHECK (total_cents > 0),
    currency TEXT NOT NULL
) STRICT;
CREATE INDEX orders_of ON orders (customer_id);

CREATE TABLE items (
    item_id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL REFERENCES orders,
    product_id TEXT NOT NULL REFERENCES products,
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    price_cents INTEGER NOT NULL CHECK (price_cents > 0),  -- of one piece, when it was bought
    status TEXT NOT NULL CHECK (status IN ('ordered', 'returning', 'returned', 'exchanging', 'cancelled'))
) STRICT;
CREATE INDEX items_of ON items (order_id);

CREATE TABLE shipments (
    order_id TEXT PRIMARY KEY REFERENCES orders,
    carrier TEXT NOT NULL,
    tracking TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL CHECK (status IN ('in_transit', 'out_for_delivery', 'delivered')),
    shipped_on TEXT NOT NULL,
    expected_on TEXT NOT NULL,
    delivered_on TEXT
) STRICT;

CREATE TABLE refunds (
    refund_id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL REFERENCES orders,
    item_id TEXT REFERENCES items,  -- null: the whole order
    amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    status TEXT NOT NULL CHECK (status IN ('pending', 'paid')),
    reason TEXT NOT NULL,
    created_on TEXT NOT NULL
) STRICT;
CREATE INDEX refunds_of ON refunds (order_id);

CREATE TABLE returns (
    return_id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL REFERENCES orders,
    item_id TEXT NOT NULL UNIQUE REFERENCES items,  -- rule R8: once an item
    kind TEXT NOT NULL CHECK (kind IN ('return', 'exchange')),
    reason TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('requested', 'received', 'closed'))
) STRICT;
CREATE INDEX returns_of ON returns (order_id);

CREATE TABLE invoices (
    invoice_id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL UNIQUE REFERENCES orders,
    sent_to TEXT NOT NULL
) STRICT;

CREATE TABLE tickets (
    ticket_id TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL REFERENCES customers,
    order_id TEXT REFERENCES orders,
    thread_id TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('complaint', 'human')),
    summary TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('open', 'taken', 'closed')),
    created_at TEXT NOT NULL
) STRICT;
CREATE INDEX tickets_of ON tickets (customer_id);

CREATE TABLE confirmations (
    proposal_id TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL REFERENCES customers,
    thread_id TEXT NOT NULL,
    tool TEXT NOT NULL,
    arguments_sha256 TEXT NOT NULL,
    decided_at TEXT NOT NULL,
    decision TEXT NOT NULL CHECK (decision IN ('approved', 'rejected'))
) STRICT;

-- One row for every write, in the transaction of the write. A refused attempt has a row as well, without a key.
CREATE TABLE audit (
    audit_id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    actor TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    tool TEXT NOT NULL,
    arguments_json TEXT NOT NULL,
    idempotency_key TEXT UNIQUE,
    result_json TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_is_kept BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows do not change'); END;
CREATE TRIGGER audit_stays BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are not deleted'); END;
