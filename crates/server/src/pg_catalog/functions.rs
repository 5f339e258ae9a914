//! The functions that catalog queries call, row by row over small tables.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListBuilder, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use tidewire_types::{SqlError, SqlState};

use super::facts::{Facts, Relation, quote_ident};
use super::relations::{index_definition, key_list};

/// An argument or a result.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Text(String),
    Int(i64),
    Bool(bool),
    List(Vec<String>),
}

impl Value {
    fn int(&self) -> Option<i64> {
        match self {
            Value::Int(n) => Some(*n),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Value {
        Value::Text(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Value {
        Value::Text(value.to_owned())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Int(value)
    }
}

type Body = fn(&Facts, &[Value]) -> std::result::Result<Value, SqlError>;

/// The type of a result.
#[derive(Clone, Copy, Debug)]
enum Returns {
    Text,
    Int,
    Bool,
    List,
}

struct Definition {
    name: &'static str,
    returns: Returns,
    body: Body,
}

macro_rules! functions {
    ($($name:literal $returns:ident $body:expr;)*) => {
        /// Names of all functions here.
        pub const NAMES: &[&str] = &[$($name),*];
        static DEFINITIONS: &[Definition] =
            &[$(Definition { name: $name, returns: Returns::$returns, body: |facts, args| Ok(call(facts, args, $body)) }),*];
    };
}

fn call<T: Into<Value>>(facts: &Facts, args: &[Value], body: impl Fn(&Facts, &[Value]) -> T) -> Value {
    body(facts, args).into()
}

fn int(args: &[Value], idx: usize) -> Option<i64> {
    args.get(idx)?.int()
}

fn text(args: &[Value], idx: usize) -> Option<&str> {
    args.get(idx)?.text()
}

fn relation<'a>(facts: &'a Facts, args: &[Value]) -> Option<&'a Relation> {
    facts.relation(int(args, 0)?)
}

fn nothing(_: &Facts, _: &[Value]) -> Value {
    Value::Null
}

fn yes(_: &Facts, _: &[Value]) -> bool {
    true
}

fn no(_: &Facts, _: &[Value]) -> bool {
    false
}

fn user(facts: &Facts, _: &[Value]) -> String {
    facts.user().to_owned()
}

fn database(facts: &Facts, _: &[Value]) -> String {
    facts.database.clone()
}

functions! {
    "pg_table_is_visible" Bool |facts, args| {
        let visible = |r: &Relation| matches!(r.schema.as_str(), tidewire_catalog::PUBLIC | "pg_catalog");
        let oid = int(args, 0)?;
        facts.relation(oid).or_else(|| Some(facts.index(oid)?.1)).map(visible)
    };
    "pg_function_is_visible" Bool yes;
    "pg_type_is_visible" Bool yes;
    "pg_operator_is_visible" Bool yes;
    "pg_collation_is_visible" Bool yes;
    "pg_conversion_is_visible" Bool yes;
    "pg_opclass_is_visible" Bool yes;
    "pg_opfamily_is_visible" Bool yes;
    "pg_statistics_obj_is_visible" Bool yes;
    "pg_ts_parser_is_visible" Bool yes;
    "pg_ts_dict_is_visible" Bool yes;
    "pg_ts_template_is_visible" Bool yes;
    "pg_ts_config_is_visible" Bool yes;
    "has_table_privilege" Bool yes;
    "has_column_privilege" Bool yes;
    "has_any_column_privilege" Bool yes;
    "has_schema_privilege" Bool yes;
    "has_database_privilege" Bool yes;
    "has_function_privilege" Bool yes;
    "has_sequence_privilege" Bool yes;
    "has_type_privilege" Bool yes;
    "has_tablespace_privilege" Bool yes;
    "has_language_privilege" Bool yes;
    "pg_has_role" Bool yes;
    "row_security_active" Bool no;
    "pg_is_in_recovery" Bool no;
    "pg_is_other_temp_schema" Bool no;
    "pg_relation_is_publishable" Bool no;
    "pg_column_is_updatable" Bool no;
    "pg_get_userbyid" Text |facts, args| {
        let oid = int(args, 0)?;
        let known = u32::try_from(oid).ok().and_then(|oid| facts.roles.get(&oid)).cloned();
        Some(known.unwrap_or_else(|| format!("unknown (OID={oid})")))
    };
    "format_type" Text |facts, args| {
        let oid = int(args, 0)?;
        Some(facts.format_type(oid, int(args, 1).unwrap_or(-1)).unwrap_or_else(|| "???".to_owned()))
    };
    "pg_get_expr" Text |_, args| text(args, 0).map(str::to_owned);
    "pg_get_viewdef" Text |facts, args| {
        let by_name = || facts.relation_named(text(args, 0)?);
        let relation = relation(facts, args).or_else(by_name)?;
        relation.query.as_ref().map(|query| format!(" {};", query.trim()))
    };
    "pg_get_indexdef" Text |facts, args| {
        let (index, relation) = facts.index(int(args, 0)?)?;
        match int(args, 1) {
            None | Some(0) => Some(index_definition(index, relation)),
            Some(n) => {
                let idx = usize::try_from(n.checked_sub(1)?).ok()?;
                let column = relation.columns.get(*index.column_idxs.get(idx)?)?;
                Some(quote_ident(&column.name))
            }
        }
    };
    "pg_get_constraintdef" Text |facts, args| {
        let oid = int(args, 0)?;
        match facts.check(oid) {
            Some(check) if matches!(args.get(1), Some(Value::Bool(true))) => Some(format!("CHECK ({})", check.condition)),
            Some(check) => Some(format!("CHECK (({}))", check.condition)),
            None => Some(format!("PRIMARY KEY ({})", key_list(facts.relation_of_key(oid)?))),
        }
    };
    "tidewire_column_default" Text |facts, args| {
        let number = u32::try_from(int(args, 1)?).ok()?;
        let (_, column, _) = relation(facts, args)?.typed_columns().find(|(n, _, _)| *n == number)?;
        column.default.clone()
    };
    "obj_description" Text nothing;
    "col_description" Text nothing;
    "shobj_description" Text nothing;
    "pg_get_function_result" Text |_, args| int(args, 0).map(|_| "any");
    "pg_get_function_arguments" Text |_, args| int(args, 0).map(|_| "");
    "pg_get_function_identity_arguments" Text |_, args| int(args, 0).map(|_| "");
    "pg_get_function_arg_default" Text nothing;
    "pg_get_function_sqlbody" Text nothing;
    "pg_get_functiondef" Text nothing;
    "pg_get_ruledef" Text nothing;
    "pg_get_triggerdef" Text nothing;
    "pg_get_partkeydef" Text nothing;
    "pg_get_partition_constraintdef" Text nothing;
    "pg_get_statisticsobjdef_columns" Text nothing;
    "pg_get_serial_sequence" Text nothing;
    "pg_encoding_to_char" Text |_, args| int(args, 0).map(|n| if n == 6 { "UTF8" } else { "" });
    "pg_char_to_encoding" Int |_, args| text(args, 0).map(|name| if name.eq_ignore_ascii_case("utf8") { 6i64 } else { -1 });
    "getdatabaseencoding" Text |_, _| "UTF8";
    "pg_client_encoding" Text |_, _| "UTF8";
    "pg_tablespace_location" Text |_, args| int(args, 0).map(|_| "");
    "pg_relation_size" Int nothing;
    "pg_table_size" Int nothing;
    "pg_total_relation_size" Int nothing;
    "pg_indexes_size" Int nothing;
    "pg_database_size" Int nothing;
    "pg_tablespace_size" Int nothing;
    "pg_size_pretty" Text |_, args| int(args, 0).map(size_pretty);
    "pg_backend_pid" Int |_, _| i64::from(std::process::id());
    "pg_my_temp_schema" Int |_, _| 0i64;
    "pg_relation_is_updatable" Int |_, _| 0i64;
    "current_database" Text database;
    "current_catalog" Text database;
    "current_schema" Text |_, _| tidewire_catalog::PUBLIC;
    "current_user" Text user;
    "current_role" Text user;
    "session_user" Text user;
    "user" Text user;
    "version" Text |_, _| format!("PostgreSQL {} on {}", crate::startup::server_version(), std::env::consts::ARCH);
    "to_regclass" Int |facts, args| facts.class_named(text(args, 0)?).map(i64::from);
    "tidewire_regclass_out" Text |facts, args| {
        let oid = int(args, 0)?;
        if oid == 0 {
            return Some("-".to_owned());
        }
        let key = |facts: &Facts| facts.index(oid).map(|(index, _)| quote_ident(&index.name));
        let name = facts.relation(oid).map(Relation::shown_name).or_else(|| key(facts));
        Some(name.unwrap_or_else(|| oid.to_string()))
    };
    "tidewire_regtype_out" Text |facts, args| {
        let oid = int(args, 0)?;
        Some(facts.format_type(oid, -1).unwrap_or_else(|| if oid == 0 { "-".to_owned() } else { oid.to_string() }))
    };
    "tidewire_regnamespace_out" Text |_, args| {
        let oid = int(args, 0)?;
        let schema = super::facts::SCHEMAS.iter().find(|(_, schema)| i64::from(*schema) == oid);
        Some(schema.map_or_else(|| oid.to_string(), |(name, _)| quote_ident(name)))
    };
    "tidewire_regrole_out" Text |facts, args| {
        let oid = int(args, 0)?;
        let role = u32::try_from(oid).ok().and_then(|oid| facts.roles.get(&oid));
        Some(role.map_or_else(|| oid.to_string(), |name| quote_ident(name)))
    };
}

/// `current_schemas(include_implicit)`, and the conversion of a name to an OID, which can fail.
static OTHERS: &[Definition] = &[
    Definition {
        name: "current_schemas",
        returns: Returns::List,
        body: |_, args| {
            let implicit = args.first() == Some(&Value::Bool(true));
            let schemas =
                if implicit { vec!["pg_catalog", tidewire_catalog::PUBLIC] } else { vec![tidewire_catalog::PUBLIC] };
            Ok(Value::List(schemas.into_iter().map(str::to_owned).collect()))
        },
    },
    Definition { name: "tidewire_no_texts", returns: Returns::List, body: |_, _| Ok(Value::List(vec![])) },
    Definition {
        name: "tidewire_regclass_in",
        returns: Returns::Int,
        body: |facts, args| match text(args, 0) {
            None => Ok(Value::Null),
            Some(name) => match facts.class_named(name) {
                Some(oid) => Ok(Value::Int(i64::from(oid))),
                None => Err(SqlError::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist"))),
            },
        },
    },
];

fn size_pretty(bytes: i64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if size.abs() < 10 * 1024 {
            return format!("{size} {unit}");
        }
        size = (size + 512) / 1024;
    }
    format!("{size} TB")
}

/// All functions over the facts of a moment.
pub fn all(facts: &Arc<Facts>) -> Vec<Arc<ScalarUDF>> {
    DEFINITIONS
        .iter()
        .chain(OTHERS)
        .map(|definition| {
            let any_number = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
            Arc::new(ScalarUDF::new_from_impl(Function {
                definition,
                facts: facts.clone(),
                // Stable: the same within a statement.
                signature: Signature::one_of(any_number, Volatility::Stable),
            }))
        })
        .collect()
}

struct Function {
    definition: &'static Definition,
    facts: Arc<Facts>,
    signature: Signature,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.definition.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Function) -> bool {
        self.definition.name == other.definition.name && Arc::ptr_eq(&self.facts, &other.facts)
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.definition.returns {
            Returns::Text => DataType::Utf8,
            Returns::Int => DataType::Int64,
            Returns::Bool => DataType::Boolean,
            Returns::List => DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let n_rows = if is_constant { 1 } else { args.number_rows };
        let columns = args.args.iter().map(|arg| Argument::new(arg.to_array(n_rows)?)).collect::<Result<Vec<_>>>()?;
        let mut values = Vec::with_capacity(n_rows);
        for row in 0..n_rows {
            let row: Vec<Value> = columns.iter().map(|column| column.value(row)).collect();
            let value = (self.definition.body)(&self.facts, &row);
            values.push(value.map_err(|error| datafusion::error::DataFusionError::External(Box::new(error)))?);
        }
        let array = self.array(&values);
        match is_constant {
            true => Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&array, 0)?)),
            false => Ok(ColumnarValue::Array(array)),
        }
    }
}

impl Function {
    fn array(&self, values: &[Value]) -> ArrayRef {
        match self.definition.returns {
            Returns::Text => Arc::new(StringArray::from_iter(values.iter().map(Value::text))),
            Returns::Int => Arc::new(Int64Array::from_iter(values.iter().map(Value::int))),
            Returns::Bool => Arc::new(BooleanArray::from_iter(values.iter().map(|value| match value {
                Value::Bool(b) => Some(*b),
                _ => None,
            }))),
            Returns::List => {
                let mut lists = ListBuilder::new(StringBuilder::new());
                for value in values {
                    match value {
                        Value::List(items) => lists.append_value(items.iter().map(Some)),
                        _ => lists.append_null(),
                    }
                }
                Arc::new(lists.finish())
            }
        }
    }
}

/// A column of arguments in one of three types.
enum Argument {
    Int(Int64Array),
    Bool(BooleanArray),
    Text(StringArray),
    /// Of a type that no function here looks at.
    Other,
}

impl Argument {
    fn new(array: ArrayRef) -> Result<Argument> {
        let data_type = array.data_type();
        if data_type.is_integer() {
            let array = cast(&array, &DataType::Int64)?;
            return Ok(Argument::Int(array.as_primitive::<Int64Type>().clone()));
        }
        if data_type == &DataType::Boolean {
            return Ok(Argument::Bool(array.as_boolean().clone()));
        }
        if data_type.is_string() {
            return Ok(Argument::Text(cast(&array, &DataType::Utf8)?.as_string::<i32>().clone()));
        }
        Ok(Argument::Other)
    }

    fn value(&self, row: usize) -> Value {
        match self {
            Argument::Int(a) if a.is_valid(row) => Value::Int(a.value(row)),
            Argument::Bool(a) if a.is_valid(row) => Value::Bool(a.value(row)),
            Argument::Text(a) if a.is_valid(row) => Value::Text(a.value(row).to_owned()),
            _ => Value::Null,
        }
    }
}
