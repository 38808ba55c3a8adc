-- What the demo's database holds before the agent comes.
CREATE TABLE payments (
    id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer text NOT NULL,
    amount   numeric(10, 2) NOT NULL,
    paid_on  date NOT NULL,
    refunded boolean NOT NULL DEFAULT false
);
INSERT INTO payments (customer, amount, paid_on) VALUES
    ('Grace Hopper', 12.50, '2026-10-01'),
    ('Ada Lovelace', 99.90, '2026-10-03'),
    ('Ada Lovelace', 99.90, '2026-10-03');
