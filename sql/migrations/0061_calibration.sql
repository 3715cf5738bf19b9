-- What estimates mean in time on this machine, as `watershed calibrate` measured it. Speed only: no answer depends on it.

CREATE TABLE watershed_control.calibration (
    one bool PRIMARY KEY DEFAULT true CHECK (one),
    postgres_base_us float8 NOT NULL CHECK (postgres_base_us >= 0 AND postgres_base_us < 1e9),
    postgres_unit_us float8 NOT NULL CHECK (postgres_unit_us > 0 AND postgres_unit_us < 1e9),
    lake_base_us float8 NOT NULL CHECK (lake_base_us >= 0 AND lake_base_us < 1e9),
    lake_file_us float8 NOT NULL CHECK (lake_file_us >= 0 AND lake_file_us < 1e9),
    lake_value_us float8 NOT NULL CHECK (lake_value_us > 0 AND lake_value_us < 1e9),
    measured_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE watershed_control.calibration IS 'microseconds: a statement, a unit of cost and what the lake opens and reads; made by watershed calibrate';
GRANT SELECT, INSERT, UPDATE, DELETE ON watershed_control.calibration TO watershed_archiver;
GRANT SELECT ON watershed_control.calibration TO watershed_gateway;
