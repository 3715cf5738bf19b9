-- Rows :from to :to of each table.
INSERT INTO samples (ts, id, i2, i4, n, nu, b, t, v, d, tm, tz, u, j, f8, by, kind)
SELECT timestamptz '2024-03-09 20:00:00+00' + k * interval '17 minutes 0.25 seconds', k,
       CASE WHEN k % 11 = 0 THEN NULL ELSE k % 1000 - 500 END,
       CASE WHEN k % 13 = 0 THEN NULL ELSE k * 7919 END,
       CASE WHEN k % 7 = 0 THEN NULL ELSE k / 8.0 END,
       CASE k % 5 WHEN 0 THEN NULL WHEN 1 THEN 'NaN' WHEN 2 THEN 0.10 ELSE k * 1000000000000000000.5 END,
       CASE k % 3 WHEN 0 THEN true WHEN 1 THEN false END,
       (ARRAY['', 'a', 'ä', '日本語', NULL, E'tab\there', 'quote''s', E'new\nline', E'back\\slash', 'NULL'])[1 + k % 10],
       CASE WHEN k % 6 > 0 THEN left(md5(k::text), 1 + k % 20) END,
       CASE WHEN k % 9 > 0 THEN date '2024-01-01' + k % 400 END,
       CASE WHEN k % 8 > 0 THEN timestamp '2024-03-10 01:30:00' + k * interval '911.000001 seconds' END,
       CASE WHEN k % 4 > 0 THEN timestamptz '2024-11-03 04:30:00+00' + k * interval '13 minutes' END,
       CASE WHEN k % 10 > 0 THEN md5((k % 50)::text)::uuid END,
       (ARRAY[NULL, 'null', '{}', '{"b": 1.10, "a": [1, null, true]}', '"text"', '{"k": ' || k || '}'])[1 + k % 6]::jsonb,
       CASE WHEN k % 12 > 0 THEN (k * 0.1)::float8 END,
       CASE WHEN k % 3 > 0 THEN decode(left(md5(k::text), (k % 8) * 2), 'hex') END,
       'kind ' || k % 5
FROM generate_series(:from, :to) k;

INSERT INTO logs (ts, level, service, host, message, metadata, ingested_at)
SELECT timestamptz '2024-03-09 20:00:00+00' + k * interval '13 minutes', (ARRAY['INFO', 'WARN', 'ERROR', 'DEBUG', NULL])[1 + k % 5],
       'service-' || k % 4, 'host-' || k % 9, 'message ' || k, jsonb_build_object('status', 200 + k % 3, 'path', '/p' || k % 6), '2024-05-01 00:00:00+00'
FROM generate_series(:from, :to) k;

INSERT INTO events (event_id, ts, user_id, session_id, event_type, event_data, device, ingested_at)
SELECT md5(k::text)::uuid, timestamptz '2024-03-09 20:00:00+00' + k * interval '11 minutes', 'user-' || k % 20, 'session-' || k % 40,
       (ARRAY['click', 'view', 'buy'])[1 + k % 3], jsonb_build_object('amount', k % 17), CASE WHEN k % 4 > 0 THEN '{"os": "linux"}'::jsonb END, '2024-05-01 00:00:00+00'
FROM generate_series(:from, :to) k
