-- The standard tables, tiered from the start: logs from topic logs.raw, events from topic events.raw.

SET LOCAL ROLE watershed;

CREATE TABLE public.logs (
    ts           timestamptz NOT NULL,
    level        text,
    service      text,
    host         text,
    message      text,
    metadata     jsonb,
    ingested_at  timestamptz DEFAULT now()
);
COMMENT ON TABLE public.logs IS 'log lines of all services';
COMMENT ON COLUMN public.logs.ts IS 'when the line was written';
COMMENT ON COLUMN public.logs.metadata IS 'every key that has no column of its own';
COMMENT ON COLUMN public.logs.ingested_at IS 'when the row was written here';
CREATE INDEX logs_ts_idx ON public.logs (ts);

CREATE TABLE public.events (
    event_id     uuid,
    ts           timestamptz NOT NULL,
    user_id      text,
    session_id   text,
    event_type   text,
    event_data   jsonb,
    device       jsonb,
    ingested_at  timestamptz DEFAULT now()
);
COMMENT ON TABLE public.events IS 'what users did';
COMMENT ON COLUMN public.events.ts IS 'when it happened';
COMMENT ON COLUMN public.events.event_data IS 'every key that has no column of its own';
COMMENT ON COLUMN public.events.ingested_at IS 'when the row was written here';
CREATE INDEX events_ts_idx ON public.events (ts);
CREATE INDEX events_event_id_idx ON public.events (event_id);
CREATE INDEX events_user_id_ts_idx ON public.events (user_id, ts);

GRANT SELECT ON public.logs, public.events TO watershed_readonly;

SELECT watershed.attach_table('public.logs', event_time => 'ts', overflow => 'metadata');
SELECT watershed.attach_table('public.events', event_time => 'ts', overflow => 'event_data');

RESET ROLE;
