"""What many write first: poll Kafka, parse, insert in batches, commit. Prints rows a second.

Arguments: brokers, topic, PostgreSQL URL, table, rows. Batches go in by COPY, the fastest way psycopg has.
"""
import json
import sys
import time
from datetime import datetime, timezone

import psycopg
from kafka import KafkaConsumer

brokers, topic, url, table, rows = sys.argv[1:]
rows = int(rows)
known = ("ts", "level", "service", "host", "message")
consumer = KafkaConsumer(
    topic,
    bootstrap_servers=brokers,
    group_id=None,
    auto_offset_reset="earliest",
    enable_auto_commit=False,
    max_poll_records=5000,
    fetch_max_bytes=64 << 20,
)


def row(value):
    record = json.loads(value)
    metadata = record.pop("metadata", None) or {}
    ts = record.get("ts", record.get("@timestamp"))
    if isinstance(ts, (int, float)):
        ts = datetime.fromtimestamp(ts, timezone.utc)
    metadata.update((k, v) for k, v in record.items() if k not in known and k != "@timestamp")
    return (ts, *(record.get(k) for k in known[1:]), json.dumps(metadata))


done, started = 0, None
with psycopg.connect(url) as connection:
    while done < rows:
        polled = consumer.poll(timeout_ms=10000)
        batch = [row(record.value) for records in polled.values() for record in records]
        if not batch:
            sys.exit(f"the topic gave {done} of {rows} rows")
        started = started or time.monotonic()
        with connection.cursor() as cursor:
            with cursor.copy(f"COPY {table} (ts, level, service, host, message, metadata) FROM STDIN") as copy:
                for values in batch:
                    copy.write_row(values)
        connection.commit()
        done += len(batch)
print(done / (time.monotonic() - started))
