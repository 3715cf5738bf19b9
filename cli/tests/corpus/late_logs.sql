-- Late log rows, in the tail beside the archived ones.
INSERT INTO logs (ts, level, service, host, message, metadata)
SELECT timestamptz '2015-05-18 00:00:00+00' + k * interval '61 seconds', (ARRAY['INFO', 'WARN', 'ERROR', NULL])[1 + k % 4],
       'service ' || k % 3, '10.1.0.' || k % 5, 'late ' || k, jsonb_build_object('late', true, 'k', k)
FROM generate_series(1, 300) k
