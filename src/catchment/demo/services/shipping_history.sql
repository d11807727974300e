-- What the shipping service has of the past. Temporary table: past (see history.py).

INSERT INTO picking_queue
SELECT id, warehouse_id, paid_at FROM past
WHERE paid_at IS NOT NULL AND packed_at IS NULL AND cancelled_at IS NULL;

INSERT INTO parcels (order_id, warehouse_id, carrier_id, status, kilograms, label, packed_at, shipped_at, delivered_at)
SELECT id, warehouse_id, carrier_id,
       CASE WHEN returned_at IS NOT NULL THEN 'returned'
            WHEN delivered_at IS NOT NULL THEN 'delivered'
            WHEN shipped_at IS NOT NULL THEN 'shipped'
            ELSE 'packed' END::parcel_status,
       kilograms, jsonb_build_object('to', country, 'pieces', pieces), packed_at, shipped_at, delivered_at
FROM past
WHERE packed_at IS NOT NULL
ORDER BY packed_at;

INSERT INTO tracking (parcel_id, status, happened_at, place)
SELECT parcels.id, seen.status::parcel_status, happened_at, place
FROM past
JOIN parcels ON order_id = past.id
JOIN warehouses ON warehouses.id = past.warehouse_id,
LATERAL (VALUES ('packed', past.packed_at, city), ('shipped', past.shipped_at, city),
                ('delivered', past.delivered_at, past.country), ('returned', returned_at, city)
) AS seen (status, happened_at, place)
WHERE happened_at IS NOT NULL;
