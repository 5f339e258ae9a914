//! System tables that do not depend on relations, and those that are always empty.

use std::collections::BTreeSet;

use super::facts::{DATABASE_OID, Facts, SCHEMAS, SUPERUSER, function_oid, role_oid};
use super::relations::is_superuser;
use super::table::{Cell, SystemTable};
use crate::oid::{RECORD, TEXT, TYPES};

macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$(Cell::from($cell)),*] };
}

/// The OID of the access method `hash`.
pub const HASH_METHOD: u32 = 405;
/// The pseudo-type `any`.
pub const ANY: u32 = 2276;

pub static TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "pg_catalog",
        name: "pg_namespace",
        oid: 2615,
        columns: "oid:i nspname nspowner:i nspacl:a tableoid:i",
        rows: |_, _| {
            let owner = role_oid(SUPERUSER);
            SCHEMAS.iter().map(|(name, oid)| row![*oid, *name, owner, None::<&str>, 2615u32]).collect()
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_database",
        oid: 1262,
        columns: "oid:i datname datdba:i encoding:i datlocprovider datistemplate:b datallowconn:b datconnlimit:i \
                  datfrozenxid:i datminmxid:i dattablespace:i datcollate datctype daticulocale datcollversion datacl:a \
                  tableoid:i",
        rows: |facts, _| {
            vec![row![
                DATABASE_OID,
                facts.database.as_str(),
                role_oid(SUPERUSER),
                6i64,
                'c',
                false,
                true,
                -1i64,
                0i64,
                0i64,
                1663i64,
                "C.UTF-8",
                "C.UTF-8",
                None::<&str>,
                None::<&str>,
                None::<&str>,
                1262u32
            ]]
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_roles",
        oid: 12_010,
        columns: ROLE_COLUMNS,
        rows: |facts, _| roles(facts),
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_authid",
        oid: 1260,
        columns: ROLE_COLUMNS,
        rows: |facts, _| roles(facts),
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_user",
        oid: 12_011,
        columns: "usename usesysid:i usecreatedb:b usesuper:b userepl:b usebypassrls:b passwd valuntil useconfig:a",
        rows: |facts, _| {
            let user = |(oid, name): (&u32, &String)| {
                let can = is_superuser(name, facts.user());
                let none = None::<&str>;
                row![name.as_str(), *oid, can, can, false, false, "********", none, none]
            };
            facts.roles.iter().map(user).collect()
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_type",
        oid: 1247,
        columns: "oid:i typname typnamespace:i typowner:i typlen:i typbyval:b typtype typcategory typispreferred:b \
                  typisdefined:b typdelim typrelid:i typsubscript typelem:i typarray:i typinput typoutput typreceive \
                  typsend typmodin typmodout typanalyze typalign typstorage typnotnull:b typbasetype:i typtypmod:i \
                  typndims:i typcollation:i typdefaultbin typdefault typacl:a tableoid:i",
        rows: |facts, _| types(facts),
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_proc",
        oid: 1255,
        columns: "oid:i proname pronamespace:i proowner:i prolang:i procost:f prorows:f provariadic:i prosupport \
                  prokind prosecdef:b proleakproof:b proisstrict:b proretset:b provolatile proparallel pronargs:i \
                  pronargdefaults:i prorettype:i proargtypes proallargtypes:a proargmodes:a proargnames:a proargdefaults \
                  protrftypes:a prosrc probin prosqlbody proconfig:a proacl:a tableoid:i",
        rows: |_, _| functions(),
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_am",
        oid: 2601,
        columns: "oid:i amname amhandler amtype",
        rows: |_, _| vec![row![2i64, "heap", "-", 't'], row![HASH_METHOD, "hash", "-", 'i']],
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_collation",
        oid: 3456,
        columns: "oid:i collname collnamespace:i collowner:i collprovider collisdeterministic:b collencoding:i \
                  collcollate collctype colliculocale collversion",
        rows: |_, _| {
            let none = None::<&str>;
            let owner = role_oid(SUPERUSER);
            [(100u32, "default", 'd'), (950, "C", 'c'), (951, "POSIX", 'c')]
                .into_iter()
                .map(|(oid, name, provider)| row![oid, name, 11u32, owner, provider, true, -1i64, "C", "C", none, none])
                .collect()
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_settings",
        oid: 12_012,
        columns: "name setting unit category short_desc extra_desc context vartype source min_val max_val enumvals:a \
                  boot_val reset_val sourcefile sourceline:i pending_restart:b",
        rows: |_, cx| {
            let none = None::<&str>;
            let row = |(name, value, description): &(String, String, String)| {
                let (name, value, description) = (name.as_str(), value.as_str(), description.as_str());
                row![
                    name,
                    value,
                    none,
                    "Tidewire",
                    description,
                    none,
                    "user",
                    "string",
                    "session",
                    none,
                    none,
                    none,
                    none,
                    none,
                    none,
                    none,
                    false
                ]
            };
            cx.settings.iter().map(row).collect()
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_tablespace",
        oid: 1213,
        columns: "oid:i spcname spcowner:i spcacl:a spcoptions:a",
        rows: |_, _| vec![row![1663i64, "pg_default", role_oid(SUPERUSER), None::<&str>, None::<&str>]],
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_language",
        oid: 2612,
        columns: "oid:i lanname lanowner:i lanispl:b lanpltrusted:b lanplcallfoid:i laninline:i lanvalidator:i lanacl:a \
                  tableoid:i",
        rows: |_, _| {
            let (owner, none) = (role_oid(SUPERUSER), None::<&str>);
            vec![row![12i64, "internal", owner, false, false, 0i64, 0i64, 0i64, none, 2612u32]]
        },
    },
];

const ROLE_COLUMNS: &str = "oid:i rolname rolsuper:b rolinherit:b rolcreaterole:b rolcreatedb:b rolcanlogin:b \
                            rolreplication:b rolconnlimit:i rolpassword rolvaliduntil rolbypassrls:b rolconfig:a \
                            tableoid:i";

fn roles(facts: &Facts) -> Vec<Vec<Cell>> {
    let role = |(oid, name): (&u32, &String)| {
        let can = is_superuser(name, facts.user());
        let none = None::<&str>;
        row![*oid, name.as_str(), can, true, can, can, true, false, -1i64, "********", none, false, none, 1260u32]
    };
    facts.roles.iter().map(role).collect()
}

/// One row of `pg_type`: `size`, kind (`b` base, `p` pseudo, `c` row), category, element, array.
fn type_row(oid: u32, name: String, size: i64, kind: char, category: char, element: u32, array: u32) -> Vec<Cell> {
    let procedure = |suffix: &str| format!("{name}{suffix}");
    let (input, output, receive, send) = match element {
        0 => (procedure("in"), procedure("out"), procedure("recv"), procedure("send")),
        _ => ("array_in".into(), "array_out".into(), "array_recv".into(), "array_send".into()),
    };
    let collation = if category == 'S' { 100i64 } else { 0 };
    let mut row = row![
        oid,
        name,
        11u32,
        role_oid(SUPERUSER),
        size,
        (1..=8).contains(&size),
        kind,
        category,
        matches!(oid, 16 | 25 | 26 | 701 | 1184 | 1186),
        true,
        ',',
        0i64,
        if element == 0 { "-" } else { "array_subscript_handler" },
        element,
        array,
        input,
        output,
        receive,
        send,
        "-",
        "-",
        "-",
        if size == 8 { 'd' } else { 'i' },
        if size > 0 { 'p' } else { 'x' },
        false,
        0i64,
        -1i64,
        0i64,
        collation
    ];
    row.extend([Cell::Null, Cell::Null, Cell::Null, Cell::from(1247u32)]);
    row
}

fn types(facts: &Facts) -> Vec<Vec<Cell>> {
    let mut rows = vec![];
    for t in TYPES {
        let kind = if matches!(t.category, 'P' | 'X') { 'p' } else { 'b' };
        rows.push(type_row(t.oid, t.name.to_owned(), i64::from(t.size), kind, t.category, 0, t.array_oid));
        if t.array_oid != 0 {
            rows.push(type_row(t.array_oid, format!("_{}", t.name), -1, 'b', 'A', t.oid, 0));
        }
    }
    rows.push(type_row(ANY, "any".into(), 4, 'p', 'P', 0, 0));
    for relation in &facts.relations {
        for (_, column, type_oid) in relation.typed_columns().filter(|(_, _, oid)| is_derived(*oid)) {
            let element = if matches!(column.sql_type, tidewire_types::SqlType::Array(_)) { RECORD } else { 0 };
            let category = if element == 0 { 'C' } else { 'A' };
            rows.push(type_row(type_oid, column.sql_type.to_string(), -1, 'b', category, element, 0));
        }
    }
    rows
}

fn is_derived(oid: u32) -> bool {
    !TYPES.iter().any(|t| t.oid == oid || t.array_oid == oid)
}

/// DataFusion's functions and those of this crate; their types are looser than `pg_proc` can say.
fn functions() -> Vec<Vec<Cell>> {
    let mut names: BTreeSet<(String, char)> = BTreeSet::new();
    names.extend(datafusion::functions::all_default_functions().iter().map(|f| (f.name().to_owned(), 'f')));
    names.extend(
        datafusion::functions_nested::all_default_nested_functions().iter().map(|f| (f.name().to_owned(), 'f')),
    );
    names.extend(
        datafusion::functions_window::all_default_window_functions().iter().map(|f| (f.name().to_owned(), 'w')),
    );
    names.extend(
        datafusion::functions_aggregate::all_default_aggregate_functions().iter().map(|f| (f.name().to_owned(), 'a')),
    );
    names.extend(super::functions::NAMES.iter().map(|name| ((*name).to_owned(), 'f')));
    names
        .into_iter()
        .map(|(name, kind)| {
            let mut row = row![
                function_oid(&name),
                name.as_str(),
                11u32,
                role_oid(SUPERUSER),
                12i64,
                1i64,
                0i64,
                ANY,
                "-",
                kind,
                false,
                false,
                false,
                false,
                'i',
                's',
                1i64,
                0i64,
                if name.starts_with("pg_get") { TEXT } else { ANY },
                ANY.to_string()
            ];
            row.extend(std::iter::repeat_n(Cell::Null, 5));
            row.push(Cell::from(name));
            row.extend(std::iter::repeat_n(Cell::Null, 4));
            row.push(Cell::from(1255u32));
            row
        })
        .collect()
}

macro_rules! empty {
    ($($oid:literal $name:literal $columns:literal;)*) => {
        /// Tables of things that Tidewire does not have.
        pub static EMPTY_TABLES: &[SystemTable] = &[$(SystemTable {
            schema: "pg_catalog",
            name: $name,
            oid: $oid,
            columns: $columns,
            rows: |_, _| vec![],
        },)*];
    };
}

empty! {
    1261 "pg_auth_members" "roleid:i member:i grantor:i admin_option:b";
    2605 "pg_cast" "oid:i castsource:i casttarget:i castfunc:i castcontext castmethod";
    2607 "pg_conversion" "oid:i conname connamespace:i conowner:i conforencoding:i contoencoding:i conproc condefault:b tableoid:i";
    2964 "pg_db_role_setting" "setdatabase:i setrole:i setconfig:a";
    826 "pg_default_acl" "oid:i defaclrole:i defaclnamespace:i defaclobjtype defaclacl:a";
    2608 "pg_depend" "classid:i objid:i objsubid:i refclassid:i refobjid:i refobjsubid:i deptype";
    2609 "pg_description" "objoid:i classoid:i objsubid:i description";
    3501 "pg_enum" "oid:i enumtypid:i enumsortorder:f enumlabel";
    3466 "pg_event_trigger" "oid:i evtname evtevent evtowner:i evtfoid:i evtenabled evttags:a";
    3079 "pg_extension" "oid:i extname extowner:i extnamespace:i extrelocatable:b extversion extconfig:a extcondition:a tableoid:i";
    2328 "pg_foreign_data_wrapper" "oid:i fdwname fdwowner:i fdwhandler:i fdwvalidator:i fdwacl:a fdwoptions:a tableoid:i";
    1417 "pg_foreign_server" "oid:i srvname srvowner:i srvfdw:i srvtype srvversion srvacl:a srvoptions:a";
    3118 "pg_foreign_table" "ftrelid:i ftserver:i ftoptions:a";
    2611 "pg_inherits" "inhrelid:i inhparent:i inhseqno:i inhdetachpending:b";
    2995 "pg_largeobject_metadata" "oid:i lomowner:i lomacl:a";
    12100 "pg_locks" "locktype database:i relation:i pid:i mode granted:b";
    2616 "pg_opclass" "oid:i opcmethod:i opcname opcnamespace:i opcowner:i opcfamily:i opcintype:i opcdefault:b opckeytype:i tableoid:i";
    2617 "pg_operator" "oid:i oprname oprnamespace:i oprowner:i oprkind oprcanmerge:b oprcanhash:b oprleft:i oprright:i oprresult:i oprcom:i oprnegate:i oprcode:i oprrest oprjoin";
    2753 "pg_opfamily" "oid:i opfmethod:i opfname opfnamespace:i opfowner:i tableoid:i";
    6243 "pg_parameter_acl" "oid:i parname paracl:a";
    3350 "pg_partitioned_table" "partrelid:i partstrat partnatts:i partdefid:i partattrs partclass partcollation partexprs";
    3256 "pg_policy" "oid:i polname polrelid:i polcmd polpermissive:b polroles:a polqual polwithcheck";
    12101 "pg_prepared_xacts" "transaction:i gid prepared owner database";
    6104 "pg_publication" "oid:i pubname pubowner:i puballtables:b pubinsert:b pubupdate:b pubdelete:b pubtruncate:b pubviaroot:b";
    6237 "pg_publication_namespace" "oid:i pnpubid:i pnnspid:i";
    6106 "pg_publication_rel" "oid:i prpubid:i prrelid:i prqual prattrs";
    12102 "pg_publication_tables" "pubname schemaname tablename attnames:a rowfilter";
    3541 "pg_range" "rngtypid:i rngsubtype:i rngmultitypid:i rngcollation:i rngsubopc:i rngcanonical rngsubdiff";
    2618 "pg_rewrite" "oid:i rulename ev_class:i ev_type ev_enabled is_instead:b ev_qual ev_action tableoid:i";
    3592 "pg_seclabel" "objoid:i classoid:i objsubid:i provider label";
    2224 "pg_sequence" "seqrelid:i seqtypid:i seqstart:i seqincrement:i seqmax:i seqmin:i seqcache:i seqcycle:b";
    12103 "pg_sequences" "schemaname sequencename sequenceowner data_type start_value:i min_value:i max_value:i increment_by:i cycle:b cache_size:i last_value:i";
    1214 "pg_shdepend" "dbid:i classid:i objid:i objsubid:i refclassid:i refobjid:i deptype";
    2396 "pg_shdescription" "objoid:i classoid:i description";
    12104 "pg_stat_activity" "datid:i datname pid:i leader_pid:i usesysid:i usename application_name client_addr client_hostname client_port:i backend_start xact_start query_start state_change wait_event_type wait_event state backend_xid:i backend_xmin:i query_id:i query backend_type";
    12105 "pg_stat_replication" "pid:i usesysid:i usename application_name client_addr state sent_lsn sync_state";
    12106 "pg_stat_user_tables" "relid:i schemaname relname seq_scan:i seq_tup_read:i idx_scan:i idx_tup_fetch:i n_tup_ins:i n_tup_upd:i n_tup_del:i n_live_tup:i n_dead_tup:i last_vacuum last_analyze";
    2619 "pg_statistic" "starelid:i staattnum:i stainherit:b stanullfrac:f stawidth:i stadistinct:f";
    3381 "pg_statistic_ext" "oid:i stxrelid:i stxname stxnamespace:i stxowner:i stxstattarget:i stxkeys stxkind:a stxexprs";
    6100 "pg_subscription" "oid:i subdbid:i subname subowner:i subenabled:b subconninfo subslotname subpublications:a";
    2620 "pg_trigger" "oid:i tgrelid:i tgparentid:i tgname tgfoid:i tgtype:i tgenabled tgisinternal:b tgconstrrelid:i tgconstrindid:i tgconstraint:i tgdeferrable:b tginitdeferred:b tgnargs:i tgattr tgargs tgqual tgoldtable tgnewtable tableoid:i";
    3602 "pg_ts_config" "oid:i cfgname cfgnamespace:i cfgowner:i cfgparser:i";
    3603 "pg_ts_config_map" "mapcfg:i maptokentype:i mapseqno:i mapdict:i";
    3600 "pg_ts_dict" "oid:i dictname dictnamespace:i dictowner:i dicttemplate:i dictinitoption";
    3601 "pg_ts_parser" "oid:i prsname prsnamespace:i prsstart:i prstoken:i prsend:i prsheadline:i prslextype:i";
    3764 "pg_ts_template" "oid:i tmplname tmplnamespace:i tmplinit:i tmpllexize:i";
    1418 "pg_user_mapping" "oid:i umuser:i umserver:i umoptions:a";
}
