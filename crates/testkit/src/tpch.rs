//! TPC-H in small: its schema, its queries, and data that give each query rows.
//!
//! The values are dbgen's (TPC-H specification, clause 4.2.3): names, segments, brands, containers, dates and what
//! follows from them, comments with `special .. requests`. With some hundreds of rows dbgen's own shares would leave
//! most queries empty, so the values that queries ask for are drawn more often. Everything follows from a seed.
//! `cargo run -p tidewire-testkit --bin tpch` writes `sql-tests/tpch/` with the results of a PostgreSQL.

pub mod queries;

use chrono::{Days, NaiveDate};

use crate::fuzz::Random;

/// The tables.
pub const TABLES: &[(&str, &str)] = &[
    ("region", "r_regionkey INTEGER PRIMARY KEY, r_name CHAR(25) NOT NULL, r_comment VARCHAR(152)"),
    (
        "nation",
        "n_nationkey INTEGER PRIMARY KEY, n_name CHAR(25) NOT NULL, n_regionkey INTEGER NOT NULL, n_comment VARCHAR(152)",
    ),
    (
        "supplier",
        "s_suppkey INTEGER PRIMARY KEY, s_name CHAR(25) NOT NULL, s_address VARCHAR(40) NOT NULL, s_nationkey INTEGER NOT NULL, s_phone CHAR(15) NOT NULL, s_acctbal DECIMAL(15,2) NOT NULL, s_comment VARCHAR(101) NOT NULL",
    ),
    (
        "part",
        "p_partkey INTEGER PRIMARY KEY, p_name VARCHAR(55) NOT NULL, p_mfgr CHAR(25) NOT NULL, p_brand CHAR(10) NOT NULL, p_type VARCHAR(25) NOT NULL, p_size INTEGER NOT NULL, p_container CHAR(10) NOT NULL, p_retailprice DECIMAL(15,2) NOT NULL, p_comment VARCHAR(23) NOT NULL",
    ),
    (
        "partsupp",
        "ps_partkey INTEGER, ps_suppkey INTEGER, ps_availqty INTEGER NOT NULL, ps_supplycost DECIMAL(15,2) NOT NULL, ps_comment VARCHAR(199) NOT NULL, PRIMARY KEY (ps_partkey, ps_suppkey)",
    ),
    (
        "customer",
        "c_custkey INTEGER PRIMARY KEY, c_name VARCHAR(25) NOT NULL, c_address VARCHAR(40) NOT NULL, c_nationkey INTEGER NOT NULL, c_phone CHAR(15) NOT NULL, c_acctbal DECIMAL(15,2) NOT NULL, c_mktsegment CHAR(10) NOT NULL, c_comment VARCHAR(117) NOT NULL",
    ),
    (
        "orders",
        "o_orderkey INTEGER PRIMARY KEY, o_custkey INTEGER NOT NULL, o_orderstatus CHAR(1) NOT NULL, o_totalprice DECIMAL(15,2) NOT NULL, o_orderdate DATE NOT NULL, o_orderpriority CHAR(15) NOT NULL, o_clerk CHAR(15) NOT NULL, o_shippriority INTEGER NOT NULL, o_comment VARCHAR(79) NOT NULL",
    ),
    (
        "lineitem",
        "l_orderkey INTEGER, l_partkey INTEGER NOT NULL, l_suppkey INTEGER NOT NULL, l_linenumber INTEGER, l_quantity DECIMAL(15,2) NOT NULL, l_extendedprice DECIMAL(15,2) NOT NULL, l_discount DECIMAL(15,2) NOT NULL, l_tax DECIMAL(15,2) NOT NULL, l_returnflag CHAR(1) NOT NULL, l_linestatus CHAR(1) NOT NULL, l_shipdate DATE NOT NULL, l_commitdate DATE NOT NULL, l_receiptdate DATE NOT NULL, l_shipinstruct CHAR(25) NOT NULL, l_shipmode CHAR(10) NOT NULL, l_comment VARCHAR(44) NOT NULL, PRIMARY KEY (l_orderkey, l_linenumber)",
    ),
];

/// An update of each table: keys that move, dates that pass borders, names that queries ask for.
pub const UPDATES: &[&str] = &[
    "UPDATE region SET r_name = 'EUROPE' WHERE r_name = 'MIDDLE EAST'",
    "UPDATE nation SET n_regionkey = 2 WHERE n_name IN ('FRANCE', 'CANADA')",
    "UPDATE supplier SET s_acctbal = s_acctbal - 500, s_nationkey = 7 WHERE s_suppkey IN (4, 9)",
    "UPDATE part SET p_size = 15, p_type = 'PROMO POLISHED BRASS' WHERE p_partkey % 5 = 1",
    "UPDATE partsupp SET ps_availqty = ps_availqty / 2, ps_supplycost = ps_supplycost + 10 WHERE ps_suppkey % 3 = 0",
    "UPDATE customer SET c_acctbal = c_acctbal + 1000, c_mktsegment = 'BUILDING' WHERE c_custkey % 4 = 0",
    "UPDATE orders SET o_orderdate = o_orderdate + 20, o_comment = 'no special care, no requests' WHERE o_orderkey % 5 = 0",
    "UPDATE lineitem SET l_quantity = l_quantity + 5, l_discount = 0.06, l_receiptdate = l_receiptdate + 12 WHERE l_linenumber = 2",
];

/// A delete in each table.
pub const DELETES: &[&str] = &[
    "DELETE FROM region WHERE r_name = 'AFRICA'",
    "DELETE FROM nation WHERE n_name IN ('ROMANIA', 'KENYA')",
    "DELETE FROM supplier WHERE s_suppkey = 3",
    "DELETE FROM part WHERE p_partkey % 7 = 3",
    "DELETE FROM partsupp WHERE ps_partkey % 6 = 2",
    "DELETE FROM customer WHERE c_custkey % 9 = 2",
    "DELETE FROM orders WHERE o_orderkey % 8 = 3",
    "DELETE FROM lineitem WHERE l_orderkey % 11 = 4 OR l_linenumber = 5",
];

/// Which rows are made: those that are loaded first, or those that come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// About nine tenths.
    First,
    /// The others.
    Later,
}

/// An INSERT for each table.
pub fn inserts(seed: u64, share: Share) -> Vec<String> {
    let data = Data::new(seed);
    let tables = [
        ("region", data.regions),
        ("nation", data.nations),
        ("supplier", data.suppliers),
        ("part", data.parts),
        ("partsupp", data.partsupps),
        ("customer", data.customers),
        ("orders", data.orders),
        ("lineitem", data.lineitems),
    ];
    let insert = |(table, rows): (&str, Vec<(Share, String)>)| {
        let rows: Vec<String> =
            rows.into_iter().filter(|(s, _)| *s == share).map(|(_, row)| format!("({row})")).collect();
        format!("INSERT INTO {table} VALUES\n{}", rows.join(",\n"))
    };
    tables.into_iter().map(insert).collect()
}

const N_SUPPLIERS: usize = 12;
const N_PARTS: usize = 36;
const N_CUSTOMERS: usize = 45;
const N_ORDERS: usize = 150;

const REGIONS: &[&str] = &["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"];
const NATIONS: &[(&str, usize)] = &[
    ("ALGERIA", 0),
    ("ARGENTINA", 1),
    ("BRAZIL", 1),
    ("CANADA", 1),
    ("EGYPT", 4),
    ("ETHIOPIA", 0),
    ("FRANCE", 3),
    ("GERMANY", 3),
    ("INDIA", 2),
    ("INDONESIA", 2),
    ("IRAN", 4),
    ("IRAQ", 4),
    ("JAPAN", 2),
    ("JORDAN", 4),
    ("KENYA", 0),
    ("MOROCCO", 0),
    ("MOZAMBIQUE", 0),
    ("PERU", 1),
    ("CHINA", 2),
    ("ROMANIA", 3),
    ("SAUDI ARABIA", 4),
    ("VIETNAM", 2),
    ("RUSSIA", 3),
    ("UNITED KINGDOM", 3),
    ("UNITED STATES", 1),
];
/// Nations of suppliers, by turns: those that queries ask for.
const SUPPLIER_NATIONS: &[usize] = &[6, 7, 20, 3, 2, 18, 7, 20, 3, 6, 12, 8];
const CUSTOMER_NATIONS: &[usize] = &[6, 7, 2, 3, 8, 18, 12, 1, 20, 19, 13, 21, 24];
const COLORS: &[&str] = &["almond", "azure", "blush", "chiffon", "dim", "forest", "green", "lace", "navy", "plum"];
const TYPES: &[&str] = &[
    "ECONOMY ANODIZED STEEL",
    "STANDARD BRUSHED BRASS",
    "PROMO BURNISHED COPPER",
    "MEDIUM POLISHED BRASS",
    "ECONOMY ANODIZED STEEL",
    "SMALL PLATED TIN",
    "LARGE POLISHED BRASS",
    "PROMO ANODIZED NICKEL",
];
const BRANDS: &[(&str, &[&str])] = &[
    ("Brand#12", &["SM CASE", "SM BOX", "SM PACK", "SM PKG"]),
    ("Brand#23", &["MED BOX", "MED BAG", "MED BOX", "MED PACK"]),
    ("Brand#34", &["LG CASE", "LG BOX", "LG PACK", "LG PKG"]),
    ("Brand#45", &["JUMBO JAR", "WRAP CAN", "MED DRUM", "SM BAG"]),
];
const SIZES: &[usize] = &[1, 3, 5, 9, 14, 15, 15, 23, 36, 4];
const SEGMENTS: &[&str] = &["BUILDING", "AUTOMOBILE", "MACHINERY", "HOUSEHOLD", "FURNITURE", "BUILDING"];
const PRIORITIES: &[&str] = &["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"];
const MODES: &[&str] = &["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB", "AIR REG"];
const INSTRUCTIONS: &[&str] = &["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN", "DELIVER IN PERSON"];
const WORDS: &[&str] = &["furiously", "ironic", "deposits", "sleep", "quickly", "bold", "accounts", "haggle"];
/// When orders are made (year, month, months): all of the time, and what queries ask for.
const PERIODS: &[(i32, u32, usize)] =
    &[(1992, 1, 78), (1993, 7, 6), (1994, 1, 11), (1994, 12, 3), (1995, 7, 3), (1996, 1, 3), (1995, 1, 23)];

type Rows = Vec<(Share, String)>;

#[derive(Default)]
struct Data {
    regions: Rows,
    nations: Rows,
    suppliers: Rows,
    parts: Rows,
    partsupps: Rows,
    customers: Rows,
    orders: Rows,
    lineitems: Rows,
}

impl Data {
    fn new(seed: u64) -> Data {
        let mut random = Random::new(seed);
        let mut data = Data::default();
        for (key, name) in REGIONS.iter().enumerate() {
            data.regions.push((share(key, 4), format!("{key}, '{name}', '{}'", comment(&mut random))));
        }
        for (key, (name, region)) in NATIONS.iter().enumerate() {
            data.nations.push((share(key, 20), format!("{key}, '{name}', {region}, '{}'", comment(&mut random))));
        }
        for (key, nation) in (1..=N_SUPPLIERS).zip(SUPPLIER_NATIONS.iter().cycle()) {
            let text = if key % 5 == 0 { "wake Customer slow Complaints".into() } else { comment(&mut random) };
            let row = format!(
                "{key}, 'Supplier#{key:09}', '{} street', {nation}, '{}', {}, '{text}'",
                key * 7,
                phone(*nation, &mut random),
                money(&mut random, -99_999, 999_999)
            );
            data.suppliers.push((share(key, 11), row));
        }
        for key in 1..=N_PARTS {
            data.part(key, &mut random);
        }
        for key in 1..=N_CUSTOMERS {
            let nation = *random.pick(CUSTOMER_NATIONS);
            let row = format!(
                "{key}, 'Customer#{key:09}', '{} avenue', {nation}, '{}', {}, '{}', '{}'",
                key * 3,
                phone(nation, &mut random),
                money(&mut random, -99_999, 999_999),
                random.pick(SEGMENTS),
                comment(&mut random)
            );
            data.customers.push((share(key, 10), row));
        }
        for key in 1..=N_ORDERS {
            data.order(key, &mut random);
        }
        data
    }

    fn part(&mut self, key: usize, random: &mut Random) {
        let (brand, containers) = *BRANDS.iter().cycle().nth(key % BRANDS.len()).unwrap_or(&("Brand#12", &["SM BOX"]));
        let first = if key.is_multiple_of(3) { "forest" } else { random.pick(COLORS) };
        let name = format!("{first} {} {}", random.pick(COLORS), random.pick(COLORS));
        let row = format!(
            "{key}, '{name}', 'Manufacturer#{}', '{brand}', '{}', {}, '{}', {}, '{}'",
            key % 5 + 1,
            random.pick(TYPES),
            random.pick(SIZES),
            random.pick(containers),
            price(key),
            random.pick(WORDS)
        );
        let when = share(key, 12);
        self.parts.push((when, row));
        for nth in 0..3 {
            let supplier = supplier_of(key, nth);
            let row = format!(
                "{key}, {supplier}, {}, {}, '{}'",
                random.between(1, 999),
                money(random, 100, 100_000),
                comment(random)
            );
            let later = share(key * 3 + nth, 13) == Share::Later;
            self.partsupps.push((if later { Share::Later } else { when }, row));
        }
    }

    fn order(&mut self, key: usize, random: &mut Random) {
        let when = share(key, 10);
        let (year, month, n_months) = *random.pick(PERIODS);
        let start = NaiveDate::from_ymd_opt(year, month, 1).unwrap_or_default();
        let date = start + Days::new(random.below(n_months * 30) as u64);
        // A third of the customers orders nothing.
        let customer = 3 * random.below(N_CUSTOMERS / 3) + random.between(1, 2);
        let large = random.chance(8);
        let n_lines = if large { 7 } else { random.between(1, 6) };
        let (mut total, mut n_open) = (0, 0);
        for line in 1..=n_lines {
            let (row, cents, open) = lineitem(key, line, date, large, random);
            self.lineitems.push((when, row));
            total += cents;
            n_open += usize::from(open);
        }
        let status = if n_open == 0 {
            "F"
        } else if n_open == n_lines {
            "O"
        } else {
            "P"
        };
        let text = if random.chance(15) { "the special packages wake requests".into() } else { comment(random) };
        let row = format!(
            "{key}, {customer}, '{status}', {}, '{date}', '{}', 'Clerk#{:09}', 0, '{text}'",
            cents_text(total as i64),
            random.pick(PRIORITIES),
            random.between(1, 9)
        );
        self.orders.push((when, row));
    }
}

/// The row, its price in cents, and whether it is open.
fn lineitem(order: usize, line: usize, date: NaiveDate, large: bool, random: &mut Random) -> (String, usize, bool) {
    let part = random.between(1, N_PARTS);
    let supplier = supplier_of(part, random.below(3));
    let quantity = if large { random.between(40, 50) } else { random.between(1, 50) };
    let price = quantity * (90_000 + part * 100);
    let after = |date: NaiveDate, low: usize, high: usize, random: &mut Random| {
        date + Days::new(random.between(low, high) as u64)
    };
    let ship = after(date, 1, 121, random);
    let commit = after(date, 30, 90, random);
    let receipt = after(ship, 1, 30, random);
    let border = NaiveDate::from_ymd_opt(1995, 6, 17).unwrap_or_default();
    let flag = if receipt > border { "N" } else { *random.pick(&["R", "A"]) };
    let status = if ship > border { "O" } else { "F" };
    let (discount, tax) = (random.below(11), random.below(9));
    let row = format!(
        "{order}, {part}, {supplier}, {line}, {quantity}, {}, 0.{discount:02}, 0.{tax:02}, '{flag}', '{status}', '{ship}', '{commit}', '{receipt}', '{}', '{}', '{}'",
        cents_text(price as i64),
        random.pick(INSTRUCTIONS),
        random.pick(MODES),
        random.pick(WORDS)
    );
    (row, price, status == "O")
}

/// Every n-th row comes later.
fn share(key: usize, n: usize) -> Share {
    if key % n == n - 1 { Share::Later } else { Share::First }
}

fn supplier_of(part: usize, nth: usize) -> usize {
    (part + nth * 5) % N_SUPPLIERS + 1
}

fn price(part: usize) -> String {
    cents_text((90_000 + part * 100) as i64)
}

fn phone(nation: usize, random: &mut Random) -> String {
    format!("{}-{}-{}-{}", nation + 10, random.between(100, 999), random.between(100, 999), random.between(1000, 9999))
}

fn comment(random: &mut Random) -> String {
    format!("{} {} {}", random.pick(WORDS), random.pick(WORDS), random.pick(WORDS))
}

fn money(random: &mut Random, low: i64, high: i64) -> String {
    let span = usize::try_from(high - low).unwrap_or(0);
    cents_text(low + random.below(span + 1) as i64)
}

fn cents_text(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}
