-- The demo's SQL, as `tidewire demo` runs it. It also runs against a Kafka of your own that has these topics:
--   psql -h 127.0.0.1 -p 7432 -U tidewire -v broker=127.0.0.1:9092 -f demo.sql tidewire

-- Streams are topics seen as rows. They are read, not stored.
CREATE STREAM orders (id BIGINT, customer TEXT, item TEXT, quantity INT, price NUMERIC(10,2), at TIMESTAMPTZ)
  WITH (KAFKA_TOPIC = 'orders', VALUE_FORMAT = 'JSON', properties.bootstrap.server = :'broker');

CREATE STREAM payments (order_id BIGINT, method TEXT, amount NUMERIC(12,2), at TIMESTAMPTZ)
  WITH (KAFKA_TOPIC = 'payments', VALUE_FORMAT = 'JSON', properties.bootstrap.server = :'broker');

-- Tables are stored, and changed with INSERT, UPDATE and DELETE.
CREATE TABLE customers (id TEXT PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL);

INSERT INTO customers VALUES
  ('c1', 'Ada', 'Amsterdam'), ('c2', 'Bram', 'Amsterdam'), ('c3', 'Chloe', 'Paris'), ('c4', 'Dilan', 'Istanbul'),
  ('c5', 'Emil', 'Berlin'), ('c6', 'Freya', 'Oslo'), ('c7', 'Goran', 'Zagreb'), ('c8', 'Hana', 'Prague'),
  ('c9', 'Ines', 'Lisbon'), ('c10', 'Jan', 'Prague');

-- A materialized view is its query, always up to date: two streams and a table joined, then summed.
CREATE MATERIALIZED VIEW revenue_by_city AS
  SELECT c.city, count(*) AS orders, sum(p.amount) AS revenue, max(p.amount) AS largest
  FROM payments p JOIN orders o ON p.order_id = o.id JOIN customers c ON o.customer = c.id
  GROUP BY c.city;

-- A view on a view: both show the same moment.
CREATE MATERIALIZED VIEW big_cities AS SELECT city, revenue FROM revenue_by_city WHERE revenue > 100000;

-- The five items that sell best.
CREATE MATERIALIZED VIEW top_items AS
  SELECT item, sum(quantity) AS sold, sum(quantity * price) AS value
  FROM orders GROUP BY item ORDER BY value DESC LIMIT 5;

-- Orders that wait for their payment. A row leaves when the payment arrives.
CREATE MATERIALIZED VIEW unpaid AS
  SELECT o.id, o.customer, o.quantity * o.price AS due
  FROM orders o LEFT JOIN payments p ON p.order_id = o.id WHERE p.order_id IS NULL;

-- Orders paid with less than is due.
CREATE MATERIALIZED VIEW underpaid AS
  SELECT o.id, o.customer, o.quantity * o.price AS due, p.amount AS paid
  FROM orders o JOIN payments p ON p.order_id = o.id AND p.amount < o.quantity * o.price;
