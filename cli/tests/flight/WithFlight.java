import java.math.BigDecimal;
import java.sql.*;
import java.util.*;

/** The JDBC driver of Arrow Flight SQL: queries, parameters, updates, transactions, catalog. Prints a line for each check, then "done". */
public class WithFlight {
    static void check(boolean holds, Object what) {
        if (!holds) throw new AssertionError(what);
    }

    static Object one(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
            check(r.next(), sql);
            return r.getObject(1);
        }
    }

    public static void main(String[] args) throws Exception {
        String address = System.getenv("WATERSHED_FLIGHT_URL").replace("grpc://", "");
        String url = "jdbc:arrow-flight-sql://" + address + "/?useEncryption=false";
        Properties login = new Properties();
        login.put("user", System.getenv("PGUSER"));
        login.put("password", System.getenv("PGPASSWORD"));
        try (Connection c = DriverManager.getConnection(url, login)) {
            try (Statement s = c.createStatement();
                    ResultSet r = s.executeQuery("SELECT kind, count(*) AS rows, sum(i4) AS total FROM samples GROUP BY kind ORDER BY kind")) {
                int n = 0;
                while (r.next()) {
                    check(r.getString(1).equals("kind " + n) && r.getLong("rows") == 200, r.getString(1));
                    n++;
                }
                check(n == 5, n);
            }
            System.out.println("queries");

            try (PreparedStatement s = c.prepareStatement("SELECT count(*), min(ts) FROM samples WHERE id <= ? AND kind = ?")) {
                for (long limit : new long[] {10, 100}) {
                    s.setLong(1, limit);
                    s.setString(2, "kind 1");
                    try (ResultSet r = s.executeQuery()) {
                        check(r.next() && r.getLong(1) == limit / 5, limit);
                        check(r.getTimestamp(2) != null, "a timestamp");
                    }
                }
            }
            System.out.println("parameters");

            try (Statement s = c.createStatement()) {
                s.executeUpdate("CREATE TEMPORARY TABLE own (a int8, b text, n numeric(10,2))");
                check(s.executeUpdate("INSERT INTO own SELECT g, 'row', 1.25 FROM generate_series(1, 10) g") == 10, "ten rows");
                try (PreparedStatement p = c.prepareStatement("UPDATE own SET b = ? WHERE a = ?")) {
                    p.setString(1, "it's");
                    p.setLong(2, 3);
                    check(p.executeUpdate() == 1, "one row");
                }
                try (ResultSet r = s.executeQuery("SELECT b, n FROM own WHERE a = 3")) {
                    check(r.next() && r.getString(1).equals("it's") && r.getBigDecimal(2).equals(new BigDecimal("1.25")), "a row");
                }
            }
            System.out.println("updates");

            try (ResultSet r = c.getMetaData().getTables(null, "public", "samp%", new String[] {"TABLE", "VIEW"})) {
                Set<String> names = new TreeSet<>();
                while (r.next()) names.add(r.getString("TABLE_NAME") + " " + r.getString("TABLE_TYPE"));
                check(names.equals(Set.of("samples TABLE", "sample_kinds VIEW")), names);
            }
            try (ResultSet r = c.getMetaData().getColumns(null, "public", "samples", "%")) {
                Map<String, Integer> types = new HashMap<>();
                while (r.next()) types.put(r.getString("COLUMN_NAME"), r.getInt("DATA_TYPE"));
                check(types.get("n") == Types.DECIMAL && types.get("id") == Types.BIGINT, types);
            }
            try (ResultSet r = c.getMetaData().getPrimaryKeys(null, "public", "kinds")) {
                check(r.next() && r.getString("COLUMN_NAME").equals("kind"), "a key");
            }
            try (ResultSet r = c.getMetaData().getImportedKeys(null, "public", "notes")) {
                check(r.next() && r.getString("PKTABLE_NAME").equals("kinds"), "a foreign key");
            }
            check(c.getMetaData().getDatabaseProductName().equals("Watershed"), c.getMetaData().getDatabaseProductName());
            System.out.println("catalog");

            try {
                one(c, "SELECT 1/0");
                throw new AssertionError("no error");
            } catch (SQLException e) {
                check(e.getMessage().contains("22012"), e.getMessage());
            }
            check(((Number) one(c, "SELECT 1")).longValue() == 1, "goes on");
            System.out.println("errors");
        }
        login.put("password", "wrong");
        try (Connection c = DriverManager.getConnection(url, login)) {
            throw new AssertionError("a wrong password");
        } catch (SQLException e) {
            System.out.println("login");
        }
        System.out.println("done");
    }
}
