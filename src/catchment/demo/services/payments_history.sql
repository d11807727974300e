-- What the payments service has of the past. Temporary table: past (see history.py).

INSERT INTO payments (order_id, method, status, amount, fee, details, received_at)
SELECT id, method::payment_method,
       -- Of an order that was paid twice the second payment goes back.
       CASE WHEN refunded_at IS NOT NULL AND received_at = greatest(paid_at, paid_again_at)
            THEN 'refunded' ELSE 'captured' END::payment_status,
       total, round(total * 0.0145 + 0.25, 4), jsonb_build_object('reference', format('R-%s', id)), received_at
FROM past, LATERAL (VALUES (paid_at), (paid_again_at)) AS payment (received_at)
WHERE received_at IS NOT NULL
ORDER BY received_at;

INSERT INTO refunds (payment_id, amount, reason, refunded_at)
SELECT payments.id, amount,
       CASE WHEN paid_again_at IS NOT NULL THEN 'paid twice'
            WHEN returned_at IS NOT NULL THEN 'returned'
            ELSE 'cancelled' END,
       refunded_at
FROM payments JOIN past ON past.id = order_id
WHERE status = 'refunded'
ORDER BY refunded_at;
