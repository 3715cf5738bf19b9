-- Rows :from to :to of the zoo: every value is a function of the row's number, so that a round can be repeated.
INSERT INTO public.zoo (ts, id, i2, i4, i8, n, nb, nu, b, t, v, d, tm, tz, u, j, f8, by, "Odd Name", g)
SELECT
    CASE k % 8
        WHEN 0 THEN timestamptz '2024-03-09 22:00:00+00' + (k * 7919 % 172800) * interval '1 second'
        WHEN 1 THEN timestamptz '2024-11-02 22:00:00+00' + (k * 6151 % 172800) * interval '1 second'
        WHEN 2 THEN timestamptz '2015-05-17 10:05:03.123456+00' + (k * 104729 % 400000) * interval '1 second'
        WHEN 3 THEN timestamptz '1999-12-31 23:59:59.999998+00' + (k % 5) * interval '1 microsecond'
        WHEN 4 THEN date_trunc('day', now()) + interval '5 hours' - (k % 4) * interval '1 day' + (k * 31 % 3600) * interval '1.000001 seconds'
        WHEN 5 THEN date_trunc('day', now()) - interval '1 hour' + (k % 3) * interval '1 day'
        WHEN 6 THEN timestamptz '2031-01-01 00:00:00+00' + (k % 9) * interval '17 hours'
        ELSE timestamptz '2024-07-01 00:00:00+00' + (k % 7) * interval '1 day'
    END,
    k,
    CASE WHEN k % 11 = 0 THEN NULL WHEN k % 97 = 0 THEN 32767 WHEN k % 89 = 0 THEN -32768 ELSE h % 1000 END,
    CASE WHEN k % 13 = 0 THEN NULL WHEN k % 101 = 0 THEN 2147483647 WHEN k % 103 = 0 THEN -2147483648 ELSE h % 5000 END,
    CASE WHEN k % 17 = 0 THEN NULL WHEN k % 107 = 0 THEN 9223372036854775807 WHEN k % 109 = 0 THEN -9223372036854775808
         ELSE h::int8 * 1000003 END,
    CASE WHEN k % 19 = 0 THEN NULL WHEN k % 113 = 0 THEN 99999999.99 WHEN k % 127 = 0 THEN -99999999.99 WHEN k % 7 = 0 THEN 0.00
         ELSE (h % 1000000) / 100.0 END,
    CASE WHEN k % 23 = 0 THEN NULL WHEN k % 131 = 0 THEN 999999999999999999.9999999999 WHEN k % 137 = 0 THEN -999999999999999999.9999999999
         ELSE h / 1024.0 END,
    CASE WHEN k % 5 = 0 THEN NULL
         ELSE (ARRAY['NaN', 'Infinity', '-Infinity', '0.10', '0.100', '1e40', '-0', '12345678901234567890123456789012345678901234567890.5'])[1 + k % 8]::numeric END,
    CASE k % 3 WHEN 0 THEN true WHEN 1 THEN false END,
    CASE WHEN k % 29 = 0 THEN 'row ' || k % 20
         ELSE (ARRAY['', 'a', 'A', 'ä', 'z', 'Ω', '日本語', '🙂', E'tab\there', 'quote''s "double"', 'per%cent_under', E'back\\slash', NULL, 'a ',
                     E'new\nline', 'NULL', 'ab', 'aB', 'b', 'zz'])[1 + k % 20] END,
    CASE WHEN k % 31 = 0 THEN NULL ELSE left('v' || md5((k % 40)::text), 1 + (k % 24)::int) END,
    CASE WHEN k % 37 = 0 THEN NULL WHEN k % 41 = 0 THEN date '0044-03-15 BC' WHEN k % 43 = 0 THEN date '5874897-12-31'
         ELSE date '2024-01-01' + (k % 400)::int END,
    CASE WHEN k % 47 = 0 THEN NULL WHEN k % 53 = 0 THEN timestamp '0001-01-01 00:00:00' WHEN k % 59 = 0 THEN timestamp '294246-12-31 23:59:59.999999'
         ELSE timestamp '2024-03-10 01:30:00' + (k * 911 % 86400) * interval '1 second' END,
    CASE WHEN k % 61 = 0 THEN NULL WHEN k % 67 = 0 THEN 'infinity' WHEN k % 71 = 0 THEN '-infinity' WHEN k % 73 = 0 THEN '4713-01-01 00:00:00+00 BC'
         ELSE timestamptz '2024-11-03 04:30:00+00' + (k * 13 % 7200) * interval '1.5 seconds' END,
    CASE WHEN k % 79 = 0 THEN NULL WHEN k % 83 = 0 THEN '00000000-0000-0000-0000-000000000000' ELSE md5((k % 500)::text)::uuid END,
    (ARRAY[NULL, 'null', '{}', '[]', '{"b": 1.10, "a": [1e5, null, true], "a": 2}', '"text with \"quotes\" and ünïcode"', '-0.0',
           '{"k": ' || k || ', "deep": {"er": ["x", {"y": "日本"}]}}', '[1, 2, [3, {"z": 1e-7}]]'])[1 + k % 9]::jsonb,
    CASE WHEN k % 5 = 0 THEN NULL ELSE (ARRAY['NaN', 'Infinity', '-Infinity', '-0', '0.1', '1e-300', '1e300', '0.30000000000000004'])[1 + k % 8]::float8 END,
    CASE WHEN k % 3 = 0 THEN NULL ELSE decode(left(md5(k::text), (k % 8)::int * 2), 'hex') END,
    CASE k % 4 WHEN 0 THEN 'odd' WHEN 1 THEN 'Odd' END,
    k % 13
FROM (SELECT k, ('x' || left(md5(k::text), 8))::bit(32)::int4 AS h FROM generate_series(:from::int8, :to::int8) k) numbers;

-- A second, smaller table, with duplicates and NULLs among its keys, and keys that the zoo lacks.
INSERT INTO public.ant (ts, id, g, k, t, v, n, nb, b, d, u)
SELECT
    timestamptz '2024-03-09 21:00:00+00' + k * interval '1 hour', k,
    CASE k % 8 WHEN 0 THEN NULL ELSE k % 15 END,
    CASE k % 6 WHEN 0 THEN NULL ELSE k % 20 END,
    (ARRAY['a', 'A', 'ä', '', NULL, 'nobody'])[k % 6 + 1],
    (ARRAY['v', 'vc4', 'va', NULL])[k % 4 + 1],
    CASE k % 4 WHEN 0 THEN NULL WHEN 1 THEN 99999999.99 WHEN 2 THEN 0.00 ELSE k % 100 END,
    CASE k % 4 WHEN 0 THEN NULL WHEN 1 THEN 99999999.99 WHEN 2 THEN 0 ELSE k % 100 END,
    CASE k % 3 WHEN 0 THEN true WHEN 1 THEN false END,
    CASE k % 5 WHEN 0 THEN NULL WHEN 1 THEN date '5874897-12-31' ELSE date '2024-01-01' + (k % 40)::int END,
    md5((k % 500)::text)::uuid
FROM generate_series(:from::int8, :to::int8) k
WHERE k % 10 < 3;
