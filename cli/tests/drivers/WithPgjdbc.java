// pgjdbc: the contract in every query mode, autocommit on and off, fetch sizes (portals on the lake), prepare thresholds (named
// statements and binary results after some executions), batches, metadata, COPY, large values, notifications.

import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.*;
import java.time.OffsetDateTime;
import java.util.*;
import java.util.concurrent.atomic.AtomicBoolean;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.PGStatement;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

public class WithPgjdbc {
    record Case(String name, String sql, List<String[]> values) {}

    static String key, mark, own, heavy;
    static final List<Case> cases = new ArrayList<>();
    static final String JOURNAL = "INSERT INTO journal (who, n, note) VALUES (?, ?, ?)";

    interface Work { void run() throws Exception; }

    static void say(String name, Object... values) {
        StringBuilder line = new StringBuilder(name).append(":");
        for (Object value : values) line.append(' ').append(shown(value));
        System.out.println(line.toString().replace(key, "KEY").replace("\n", "\\n"));
    }

    static String shown(Object value) {
        if (value instanceof byte[] bytes) return "x" + HexFormat.of().formatHex(bytes);
        if (value instanceof Object[] array) return Arrays.deepToString(array);
        if (value instanceof java.sql.Array array) {
            try { return array.getBaseTypeName() + Arrays.deepToString((Object[]) array.getArray()); } catch (SQLException e) { return e.getSQLState(); }
        }
        return String.valueOf(value);
    }

    static Connection connect(String... settings) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        for (int i = 0; i < settings.length; i += 2) properties.setProperty(settings[i], settings[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE"), properties);
    }

    static void bind(PreparedStatement statement, List<String[]> values) throws SQLException {
        for (int i = 0; i < values.size(); i++) {
            String text = values.get(i)[1];
            switch (values.get(i)[0]) {
                case "int4" -> statement.setInt(i + 1, Integer.parseInt(text));
                case "int8" -> statement.setLong(i + 1, Long.parseLong(text));
                case "text" -> statement.setString(i + 1, text);
                case "null" -> statement.setNull(i + 1, Types.VARCHAR);
                case "uuid" -> statement.setObject(i + 1, UUID.fromString(text));
                case "ts" -> statement.setObject(i + 1, OffsetDateTime.parse(text));
                default -> throw new IllegalArgumentException(text);
            }
        }
    }

    /** Columns as the driver describes them, then all rows. */
    static void rows(String name, ResultSet rows) throws SQLException {
        ResultSetMetaData meta = rows.getMetaData();
        StringJoiner columns = new StringJoiner(", ");
        for (int i = 1; i <= meta.getColumnCount(); i++) {
            columns.add(meta.getColumnLabel(i) + " " + meta.getColumnTypeName(i) + " " + meta.getColumnType(i) + " " + meta.getPrecision(i) + "," + meta.getScale(i)
                + " " + meta.getColumnClassName(i) + " " + meta.getTableName(i) + " " + meta.isNullable(i) + " " + meta.isAutoIncrement(i));
        }
        say(name, columns);
        data(name, rows);
    }

    static void data(String name, ResultSet rows) throws SQLException {
        int width = rows.getMetaData().getColumnCount(), count = 0;
        while (rows.next()) {
            Object[] row = new Object[width];
            for (int i = 0; i < width; i++) {
                Object value = rows.getObject(i + 1);
                // Binary bytes as a string are the name of a Java object.
                row[i] = value instanceof byte[] ? shown(value) : shown(value) + "/" + rows.getString(i + 1);
            }
            say(name, (Object) row);
            count++;
        }
        rows.close();
        say(name, count);
    }

    static void ask(String name, Connection c, String sql, Object... values) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) s.setObject(i + 1, values[i]);
            data(name, s.executeQuery());
        }
    }

    static void own(String name, Connection c) throws SQLException { ask(name, c, own, key); }

    static void write(Connection c, long n, String note) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(JOURNAL)) {
            s.setString(1, key);
            s.setLong(2, n);
            s.setString(3, note);
            s.executeUpdate();
        }
    }

    static void error(String name, Work work) throws Exception {
        try {
            work.run();
            say(name, "no error");
        } catch (BatchUpdateException e) {
            say(name, e.getSQLState(), Arrays.toString(e.getUpdateCounts()), e.getNextException() == null ? null : e.getNextException().getMessage());
        } catch (PSQLException e) {
            ServerErrorMessage m = e.getServerErrorMessage();
            if (m == null) say(name, e.getSQLState(), e.getMessage());
            else say(name, m.getSQLState(), m.getSeverity(), m.getMessage(), m.getDetail(), m.getHint(), m.getPosition(), m.getTable(), m.getColumn(), m.getConstraint(), m.getWhere());
        }
    }

    static void run(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.execute(sql);
        }
    }

    static void statements(String label, Connection c, int fetchSize, int times) throws SQLException {
        for (Case it : cases) {
            try (PreparedStatement s = c.prepareStatement(it.sql)) {
                s.setFetchSize(fetchSize);
                for (int n = 0; n < times; n++) {
                    bind(s, it.values);
                    if (n == 0) rows(label + " " + it.name, s.executeQuery());
                    else data(label + " " + it.name + " " + n, s.executeQuery());
                }
            }
        }
    }

    static void modes() throws Exception {
        for (String mode : List.of("extended", "simple", "extendedCacheEverything")) {
            for (boolean auto : new boolean[] {true, false}) {
                try (Connection c = connect("preferQueryMode", mode)) {
                    c.setAutoCommit(auto);
                    statements(mode + " " + auto, c, 0, 1);
                    if (!auto) c.commit();
                    try (Statement s = c.createStatement()) {
                        for (int n = 0; n < 3; n++) rows(mode + " statement " + n, s.executeQuery("SELECT kind, count(*) AS " + mark + ", max(ts) FROM samples GROUP BY kind ORDER BY kind"));
                        // Several statements in one.
                        boolean more = s.execute("SELECT 1 AS a; SELECT count(*) FROM samples; SELECT level, count(*) FROM logs GROUP BY level ORDER BY level");
                        while (more) {
                            data(mode + " several", s.getResultSet());
                            more = s.getMoreResults();
                        }
                    }
                }
            }
        }
    }

    static void thresholds() throws Exception {
        for (String threshold : List.of("1", "5", "-1", "0")) {
            try (Connection c = connect("prepareThreshold", threshold)) {
                statements("threshold " + threshold, c, 0, threshold.equals("5") ? 8 : 2);
            }
        }
        try (Connection c = connect("prepareThreshold", "1", "binaryTransfer", "false")) {
            statements("named text", c, 0, 2);
        }
        try (Connection c = connect("prepareThreshold", "5"); PreparedStatement s = c.prepareStatement("SELECT kind, count(*) AS " + mark + ", avg(n) FROM samples WHERE id < ? GROUP BY kind ORDER BY kind")) {
            for (int n = 1; n <= 8; n++) {
                s.setLong(1, 100L * n);
                data("execution " + n, s.executeQuery());
                say("on the server", s.unwrap(PGStatement.class).isUseServerPrepare());
                if (n == 6) run(c, "SET search_path = public, pg_temp");
            }
            // Another type for the same parameter: prepared anew.
            s.setInt(1, 300);
            data("other type", s.executeQuery());
        }
        // DDL and settings between executions of a named statement.
        try (Connection c = connect("prepareThreshold", "1")) {
            run(c, "CREATE TEMP TABLE changing (a int4)");
            try (PreparedStatement s = c.prepareStatement("SELECT * FROM changing")) {
                for (int n = 0; n < 4; n++) data("changing " + n, s.executeQuery());
                run(c, "ALTER TABLE changing ADD b text");
                rows("changed", s.executeQuery());
                c.setAutoCommit(false);
                data("in a transaction", s.executeQuery());
                run(c, "ALTER TABLE changing ADD c text");
                error("cached plan", () -> s.executeQuery().close());
                c.rollback();
            }
            c.setAutoCommit(true);
            try (PreparedStatement s = c.prepareStatement("SELECT count(*) AS " + mark + " FROM samples WHERE kind = ?")) {
                for (int n = 0; n < 4; n++) {
                    s.setString(1, "kind " + n);
                    data("again " + n, s.executeQuery());
                    if (n == 1) run(c, "DISCARD ALL");
                }
            } catch (SQLException e) {
                say("discarded", e.getSQLState(), e.getMessage());
            }
        }
    }

    static void fetching() throws Exception {
        String lake = "SELECT id, kind, count(*) AS " + mark + " FROM samples WHERE id <= 95 GROUP BY id, kind ORDER BY id";
        for (String threshold : List.of("1", "5")) {
            try (Connection c = connect("prepareThreshold", threshold)) {
                c.setAutoCommit(false);
                for (int size : new int[] {1, 10, 95, 96, 1000}) {
                    try (PreparedStatement s = c.prepareStatement(lake)) {
                        s.setFetchSize(size);
                        data("fetched by " + size, s.executeQuery());
                    }
                }
                statements("fetched", c, 3, threshold.equals("5") ? 6 : 1);
                // Two portals at once, one of them never read to its end; and statements in between.
                try (PreparedStatement a = c.prepareStatement(lake); PreparedStatement b = c.prepareStatement("SELECT id, t FROM samples WHERE id < 30 ORDER BY id")) {
                    a.setFetchSize(7);
                    b.setFetchSize(5);
                    ResultSet x = a.executeQuery(), y = b.executeQuery();
                    for (int n = 0; n < 20; n++) {
                        x.next();
                        y.next();
                        say("two portals", x.getLong(1), x.getString(2), y.getLong(1), y.getString(2));
                        if (n % 6 == 0) own("between " + n, c);
                    }
                    y.close();
                    x.close();
                }
                try (PreparedStatement s = c.prepareStatement(lake)) {
                    s.setMaxRows(9);
                    s.setFetchSize(4);
                    data("at most 9", s.executeQuery());
                    s.setMaxRows(3);
                    s.setFetchSize(0);
                    data("at most 3", s.executeQuery());
                }
                try (PreparedStatement s = c.prepareStatement(lake)) {
                    s.setFetchSize(4);
                    ResultSet open = s.executeQuery();
                    open.next();
                    c.commit();
                    error("after commit", () -> { while (open.next()) say("row", open.getLong(1)); });
                }
                c.rollback();
                try (PreparedStatement s = c.prepareStatement("SELECT id, count(*) FROM samples WHERE id < 40 GROUP BY id ORDER BY id", ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_READ_ONLY)) {
                    ResultSet all = s.executeQuery();
                    all.last();
                    say("last", all.getRow(), all.getLong(1));
                    all.absolute(5);
                    say("fifth", all.getLong(1));
                }
                try (PreparedStatement s = c.prepareStatement(lake, ResultSet.TYPE_FORWARD_ONLY, ResultSet.CONCUR_READ_ONLY, ResultSet.HOLD_CURSORS_OVER_COMMIT)) {
                    s.setFetchSize(11);
                    ResultSet held = s.executeQuery();
                    held.next();
                    c.commit();
                    data("held", held);
                }
                c.rollback();
            }
        }
        // An adaptive fetch.
        try (Connection c = connect("adaptiveFetch", "true", "maxResultBuffer", "20M", "defaultRowFetchSize", "5")) {
            c.setAutoCommit(false);
            statements("adaptive", c, 5, 1);
        }
    }

    static void transactions() throws Exception {
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            own("nothing yet", c);
            for (int n = 0; n < 5; n++) write(c, n, "note " + n);
            own("own rows", c);
            Savepoint a = c.setSavepoint();
            write(c, 100, "a");
            own("in a savepoint", c);
            c.rollback(a);
            own("after its rollback", c);
            Savepoint b = c.setSavepoint("b");
            write(c, 10, "b");
            c.releaseSavepoint(b);
            own("released", c);
            c.commit();
            own("committed", c);
            write(c, 1000, "gone");
            c.rollback();
            own("rolled back", c);
            error("in a transaction", () -> ask("nothing", c, "SELECT count(*) FROM samples WHERE nothing = ?", 1));
            error("aborted", () -> own("nothing", c));
            c.rollback();
            own("after the rollback", c);
            c.commit();
            for (int level : new int[] {Connection.TRANSACTION_REPEATABLE_READ, Connection.TRANSACTION_SERIALIZABLE, Connection.TRANSACTION_READ_COMMITTED}) {
                c.setTransactionIsolation(level);
                c.setReadOnly(true);
                ask("level " + level, c, "SELECT current_setting('transaction_isolation'), count(*) FROM samples");
                error("read only", () -> write(c, 1, "x"));
                c.rollback();
                c.setReadOnly(false);
            }
        }
        for (String save : List.of("always", "conservative")) {
            try (Connection c = connect("autosave", save)) {
                c.setAutoCommit(false);
                own(save, c);
                error(save + " error", () -> ask("nothing", c, "SELECT count(*) FROM samples WHERE nothing = ?", 1));
                error(save + " after", () -> own("after", c));
                c.rollback();
            }
        }
    }

    static void batches() throws Exception {
        for (String[] settings : new String[][] {{}, {"reWriteBatchedInserts", "true"}, {"preferQueryMode", "simple"}, {"prepareThreshold", "1"}}) {
            try (Connection c = connect(settings)) {
                c.setAutoCommit(false);
                try (PreparedStatement s = c.prepareStatement(JOURNAL)) {
                    for (int n = 0; n < 300; n++) {
                        s.setString(1, key);
                        s.setLong(2, n);
                        s.setString(3, n % 3 == 0 ? null : "batch " + n);
                        s.addBatch();
                    }
                    int sum = 0;
                    for (int n : s.executeBatch()) sum += Math.abs(n);
                    say("batch", sum > 0);
                }
                own("own batch", c);
                try (PreparedStatement s = c.prepareStatement("INSERT INTO journal (who, n) VALUES (?, ?)", new String[] {"n", "note"})) {
                    for (int n = 0; n < 4; n++) {
                        s.setString(1, key);
                        s.setLong(2, n);
                        s.addBatch();
                    }
                    say("keys", s.executeBatch().length);
                    data("keys", s.getGeneratedKeys());
                }
                try (Statement s = c.createStatement()) {
                    s.addBatch("CREATE TEMP TABLE own (id int PRIMARY KEY)");
                    s.addBatch("INSERT INTO own VALUES (1), (2)");
                    s.addBatch("UPDATE own SET id = id + 10");
                    say("statements", Arrays.toString(s.executeBatch()));
                    Savepoint a = c.setSavepoint();
                    s.addBatch("INSERT INTO own VALUES (3)");
                    s.addBatch("INSERT INTO own VALUES (11)");
                    s.addBatch("INSERT INTO own VALUES (4)");
                    error("bad batch", s::executeBatch);
                    c.rollback(a);
                }
                own("after a bad batch", c);
                c.rollback();
            }
        }
    }

    static void errors() throws Exception {
        for (String mode : List.of("extended", "simple")) {
            try (Connection c = connect("preferQueryMode", mode, "prepareThreshold", "1", "logServerErrorDetail", "true")) {
                run(c, "CREATE TEMP TABLE own (id int PRIMARY KEY, t text CHECK (t <> ''))");
                run(c, "INSERT INTO own VALUES (1, 'x')");
                for (String sql : List.of("SELECT count(*) FORM samples", "SELECT kind, nothing, count(*) FROM samples GROUP BY 1", "SELECT count(*) FROM nothing_there",
                        "SELECT kind, id, count(*) FROM samples GROUP BY kind", "SELECT sum(1 / (i4 - i4)) FROM samples", "SELECT sum(i4 * 1000000) FROM samples",
                        "SELECT 1 / 0", "INSERT INTO own VALUES (1, 'y')", "INSERT INTO own VALUES (2, '')", "INSERT INTO journal (who, n) VALUES (NULL, 1)",
                        "UPDATE journal SET n = 1", "SELECT pg_catalog.no_such_function(1)", "SELECT count(*) FROM samples WHERE d = 'never'::text::date")) {
                    error(mode + " " + sql, () -> ask("rows", c, sql));
                    ask(mode + " going on", c, "SELECT count(*) AS " + mark + " FROM samples");
                }
                error(mode + " parameter", () -> ask("rows", c, "SELECT count(*) FROM samples WHERE d = ?::date", "never"));
                run(c, "DO $$ BEGIN RAISE NOTICE 'seen' USING HINT = 'look'; RAISE WARNING 'warned'; END $$");
                try (Statement s = c.createStatement()) {
                    s.execute("DROP TABLE IF EXISTS nothing_there");
                    for (SQLWarning w = s.getWarnings(); w != null; w = w.getNextWarning()) say("warning", w.getSQLState(), w.getMessage());
                }
            }
        }
    }

    static void cancelled(String name, String sql, boolean timeout) throws Exception {
        try (Connection c = connect(); Statement s = c.createStatement()) {
            AtomicBoolean ended = new AtomicBoolean();
            Thread canceller = new Thread(() -> {
                // Until it has ended: the first request may come before it runs.
                while (!ended.get()) {
                    try {
                        Thread.sleep(500);
                        s.cancel();
                    } catch (Exception e) {
                        return;
                    }
                }
            });
            if (timeout) s.setQueryTimeout(1);
            else canceller.start();
            error(name, () -> s.executeQuery(sql).close());
            ended.set(true);
            canceller.join();
            s.setQueryTimeout(0);
            try {
                run(c, "SELECT pg_sleep(0.2)");
            } catch (SQLException e) {
                // A request was still on its way.
            }
            ask(name + ", going on", c, "SELECT count(*) AS " + mark + " FROM samples");
        }
    }

    static void catalog(String name, ResultSet rows) throws SQLException { data(name, rows); }

    /** The same, sorted: the driver asks for no order. */
    static void unordered(String name, ResultSet rows) throws SQLException {
        List<String> lines = new ArrayList<>();
        while (rows.next()) {
            StringJoiner line = new StringJoiner(" ");
            for (int i = 1; i <= rows.getMetaData().getColumnCount(); i++) line.add(rows.getString(i));
            lines.add(line.toString());
        }
        Collections.sort(lines);
        for (String line : lines) say(name, line);
    }

    static void metadata() throws Exception {
        try (Connection c = connect("prepareThreshold", "1")) {
            DatabaseMetaData m = c.getMetaData();
            say("product", m.getDatabaseProductName(), m.getDatabaseProductVersion(), m.getDatabaseMajorVersion(), m.getMaxColumnNameLength(), m.getSQLKeywords(), m.getDefaultTransactionIsolation(), m.getMaxConnections());
            say("functions", m.getNumericFunctions(), m.getStringFunctions(), m.getTimeDateFunctions());
            for (int n = 0; n < 2; n++) {
                catalog("schemas", m.getSchemas());
                catalog("catalogs", m.getCatalogs());
                catalog("table types", m.getTableTypes());
                catalog("tables", m.getTables(null, "public", "%", null));
                catalog("tables and views", m.getTables(null, null, "%s%", new String[] {"TABLE", "VIEW", "PARTITIONED TABLE"}));
                catalog("watershed's", m.getTables(null, "watershed", "%", null));
                for (String table : List.of("samples", "journal", "kinds", "notes", "logs", "events", "sample_kinds")) {
                    catalog("columns of " + table, m.getColumns(null, "public", table, null));
                    catalog("keys of " + table, m.getPrimaryKeys(null, "public", table));
                    catalog("indexes of " + table, m.getIndexInfo(null, "public", table, false, true));
                    catalog("unique indexes of " + table, m.getIndexInfo(null, "public", table, true, false));
                    catalog("imported keys of " + table, m.getImportedKeys(null, "public", table));
                    catalog("exported keys of " + table, m.getExportedKeys(null, "public", table));
                    catalog("row identifier of " + table, m.getBestRowIdentifier(null, "public", table, DatabaseMetaData.bestRowSession, true));
                    catalog("version columns of " + table, m.getVersionColumns(null, "public", table));
                    catalog("privileges of " + table, m.getTablePrivileges(null, "public", table));
                    catalog("column privileges of " + table, m.getColumnPrivileges(null, "public", table, "%"));
                }
                catalog("cross reference", m.getCrossReference(null, "public", "kinds", null, "public", "notes"));
                unordered("types", m.getTypeInfo());
                catalog("user types", m.getUDTs(null, "public", "%", null));
                catalog("procedures", m.getProcedures(null, "watershed", "%"));
                catalog("functions", m.getFunctions(null, "watershed", "%"));
                catalog("function columns", m.getFunctionColumns(null, "watershed", "attach_table", "%"));
                catalog("client info", m.getClientInfoProperties());
            }
            try (PreparedStatement s = c.prepareStatement("SELECT kind, count(*) AS " + mark + ", sum(n) FROM samples WHERE id < ? AND ts > ? GROUP BY kind ORDER BY kind")) {
                ParameterMetaData p = s.getParameterMetaData();
                for (int i = 1; i <= p.getParameterCount(); i++) say("parameter", p.getParameterTypeName(i), p.getParameterType(i), p.getParameterClassName(i));
                ResultSetMetaData r = s.getMetaData();
                for (int i = 1; i <= r.getColumnCount(); i++) say("column", r.getColumnName(i), r.getColumnTypeName(i), r.getPrecision(i), r.getScale(i));
                s.setLong(1, 20);
                s.setObject(2, OffsetDateTime.parse("2024-03-01T00:00:00Z"));
                data("after its metadata", s.executeQuery());
            }
            say("schema", c.getSchema(), c.getCatalog(), c.isValid(60), c.isReadOnly(), c.getHoldability(), c.getTransactionIsolation());
            c.setClientInfo("ApplicationName", "metadata");
            say("client", c.getClientInfo("ApplicationName"), c.unwrap(PGConnection.class).getParameterStatuses());
        }
    }

    static void values() throws Exception {
        try (Connection c = connect("prepareThreshold", "1"); PreparedStatement s = c.prepareStatement(
                "SELECT i2, i4, id, n, sum(i4), b, t, v, d, tm, tz, u, min(i2), max(tz), count(*) AS " + mark + " FROM samples WHERE id BETWEEN ? AND ? GROUP BY i2, i4, id, n, b, t, v, d, tm, tz, u ORDER BY id")) {
            for (int n = 0; n < 3; n++) {
                s.setInt(1, 20);
                s.setInt(2, 31);
                ResultSet r = s.executeQuery();
                while (r.next()) {
                    say("values " + n, r.getShort(1), r.wasNull(), r.getInt(2), r.getLong(3), r.getBigDecimal(4), r.getDouble(5), r.getBoolean(6), r.getString(7), r.getString(8), r.getDate(9), r.getTimestamp(10),
                        r.getObject(11, OffsetDateTime.class), r.getObject(12), r.getObject(13), r.getString(14), r.getLong(15), r.getTimestamp(11));
                }
            }
        }
        try (Connection c = connect(); PreparedStatement s = c.prepareStatement("SELECT count(*) AS " + mark + " FROM samples WHERE n = ? OR tm = ? OR d = ? OR b = ? OR u = ANY (?)")) {
            for (int n = 0; n < 7; n++) {
                s.setBigDecimal(1, new java.math.BigDecimal("1.125"));
                s.setObject(2, java.time.LocalDateTime.parse("2024-03-10T01:45:11.000001"));
                s.setObject(3, java.time.LocalDate.parse("2024-01-05"));
                s.setBoolean(4, n % 2 == 0);
                s.setArray(5, c.createArrayOf("uuid", new Object[] {UUID.fromString("c4ca4238-a0b9-2382-0dcc-509a6f75849b")}));
                error("many types " + n, () -> data("many types", s.executeQuery()));
            }
        }
    }

    static void copies() throws Exception {
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            say("copied out", copy.copyOut("COPY (SELECT id, t, n FROM samples WHERE id <= 120 ORDER BY id) TO STDOUT", out), out.size());
            run(c, "CREATE TEMP TABLE copied (id int8, t text, n numeric)");
            say("copied in", copy.copyIn("COPY copied FROM STDIN", new StringReader(out.toString(StandardCharsets.UTF_8))));
            ask("copied", c, "SELECT count(*), sum(n), max(t) FROM copied");
            say("into a tiered table", copy.copyIn("COPY journal (who, n) FROM STDIN WITH CSV", new StringReader((key + ",5\n").repeat(30))));
            own("own copied rows", c);
            error("bad copy", () -> copy.copyIn("COPY journal (who, n) FROM STDIN WITH CSV", new StringReader("a,b\n")));
            c.rollback();
            own("after COPY", c);
            c.commit();
            // Large objects go by FunctionCall.
            org.postgresql.largeobject.LargeObjectManager large = c.unwrap(PGConnection.class).getLargeObjectAPI();
            long oid = large.createLO();
            try (org.postgresql.largeobject.LargeObject o = large.open(oid)) {
                o.write("a large object".getBytes(StandardCharsets.UTF_8));
                o.seek(2);
                say("large object", new String(o.read(5), StandardCharsets.UTF_8), o.size(), o.tell());
            }
            own("after a FunctionCall", c);
            c.rollback();
        }
    }

    static void notifications() throws Exception {
        try (Connection c = connect(); Connection other = connect()) {
            run(c, "LISTEN \"" + key + "\"");
            for (String payload : List.of("first", "second")) {
                ask("notify", other, "SELECT pg_notify(?, ?)", key, payload);
                PGNotification[] heard = c.unwrap(PGConnection.class).getNotifications(60000);
                for (PGNotification n : heard) say("notified", n.getName(), n.getParameter(), n.getPID() == other.unwrap(PGConnection.class).getBackendPID());
                ask("and a statement", c, "SELECT count(*) AS " + mark + " FROM samples");
            }
        }
    }

    static void escapes() throws Exception {
        try (Connection c = connect()) {
            ask("escapes", c, "SELECT {fn ucase('a')}, {d '2024-05-01'}, {ts '2024-05-01 10:00:00'}, count(*) FROM samples WHERE ts > {ts '2024-03-12 00:00:00'}");
            try (CallableStatement s = c.prepareCall("{? = call upper(?)}")) {
                s.registerOutParameter(1, Types.VARCHAR);
                s.setString(2, "called");
                s.execute();
                say("called", s.getString(1));
            }
            org.postgresql.jdbc.PgConnection raw = c.unwrap(org.postgresql.jdbc.PgConnection.class);
            say("escaped", raw.escapeLiteral("it's"), raw.escapeIdentifier("odd \"name\""));
        }
    }

    public static void main(String[] arguments) throws Exception {
        key = arguments[0];
        mark = arguments[1];
        own = "SELECT count(*) AS " + mark + ", sum(n), min(note) FROM journal WHERE who = ?";
        StringJoiner terms = new StringJoiner(", ");
        for (int n = 1; n <= 60; n++) terms.add("count(*) FILTER (WHERE a / (a + " + n + ".7) > 0.3)");
        heavy = "SELECT " + terms + ", count(*) AS " + mark + " FROM heavy";
        for (String line : Files.readAllLines(Path.of("statements.tsv"))) {
            if (line.isEmpty() || line.startsWith("#")) continue;
            String[] parts = line.split("\t");
            List<String[]> values = new ArrayList<>();
            for (int i = 3; i < parts.length; i++) values.add(parts[i].split("=", 2));
            cases.add(new Case(parts[0], parts[2].replace("MARK", mark).replaceAll("\\$\\d+", "?"), values));
        }
        modes();
        thresholds();
        fetching();
        transactions();
        batches();
        errors();
        values();
        copies();
        notifications();
        escapes();
        metadata();
        cancelled("cancelled in PostgreSQL", "SELECT pg_sleep(300)", false);
        cancelled("cancelled in the lake", heavy, false);
        cancelled("timeout", heavy, true);
        System.out.println("done");
    }
}
