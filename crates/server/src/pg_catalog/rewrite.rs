//! Catalog queries in the words that DataFusion plans.
//!
//! What only clients' catalog queries use is replaced: `OPERATOR(pg_catalog.~)`, COLLATE, `'x'::regclass` and other OID
//! types, `pg_catalog.` before functions, `ARRAY(SELECT ..)`. A SELECT that reads a table which is always empty is empty:
//! its FROM goes, and with it what DataFusion cannot plan. Invariant: a query that names none of these stays as it is.

use std::ops::ControlFlow;

use tidewire_engine::SystemContext;
use tidewire_sql::ast::{
    BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, JoinOperator, ObjectName, Query, Select, SelectItem, SetExpr, TableFactor,
    TableWithJoins, UnaryOperator, Value, VisitorMut,
};
use tidewire_sql::{fold, is_collation, walk_mut};

use super::facts::{Facts, SCHEMAS, role_oid};
use super::fixed::EMPTY_TABLES;
use crate::oid;

/// Rewrites one query in place.
pub fn rewrite(query: &mut Query, facts: &Facts, cx: &SystemContext) {
    let mut rewriter = Rewriter { facts, cx };
    // The visitor never breaks off.
    let _ = walk_mut(query, &mut rewriter);
}

struct Rewriter<'a> {
    facts: &'a Facts,
    cx: &'a SystemContext,
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if empty_selects(&mut query.body) && matches!(query.body.as_ref(), SetExpr::Select(_)) {
            // It could name columns of the tables that are gone.
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<()> {
        self.qualify(name);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(new) = self.replaced(expr) {
            *expr = new;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Collate { expr: inner, collation } if is_collation(collation) => *expr = take(inner),
            Expr::Function(function) => strip_schema(&mut function.name),
            Expr::BinaryOp { op, .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(names) = op
                    && let Some(plain) = names.last().and_then(|name| operator(name))
                {
                    *op = plain;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::value(Value::Null))
}

fn operator(name: &str) -> Option<BinaryOperator> {
    Some(match name {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

/// The parts of a name, folded; None where a part is computed.
fn parts(name: &ObjectName) -> Option<Vec<String>> {
    name.0.iter().map(|part| part.as_ident().map(fold)).collect()
}

fn strip_schema(name: &mut ObjectName) {
    if let Some([schema, _]) = parts(name).as_deref()
        && schema == "pg_catalog"
    {
        name.0.remove(0);
    }
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(Ident::new(name)),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

fn number(n: i64) -> Expr {
    let value = Expr::value(Value::Number(n.unsigned_abs().to_string(), false));
    match n < 0 {
        true => Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(value) },
        false => value,
    }
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

fn null_text() -> Expr {
    cast(Expr::value(Value::Null), DataType::Text)
}

fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

/// Types that only the catalogs use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CatalogType {
    /// `name`, `"char"`, and others that are text here.
    Text,
    /// `oid`, `xid`: numbers.
    Oid,
    Class,
    Type,
    Namespace,
    Role,
    /// `regproc`, `regoperator`, ..: shown as numbers.
    OtherObject,
}

fn catalog_type(data_type: &DataType) -> Option<CatalogType> {
    let DataType::Custom(name, modifiers) = data_type else {
        return matches!(data_type, DataType::Regclass).then_some(CatalogType::Class);
    };
    if !modifiers.is_empty() {
        return None;
    }
    let parts = parts(name)?;
    let (name, is_qualified) = match parts.as_slice() {
        [name] => (name.as_str(), false),
        [schema, name] if schema == "pg_catalog" => (name.as_str(), true),
        _ => return None,
    };
    Some(match name {
        "name" | "char" | "int2vector" | "oidvector" | "aclitem" | "pg_node_tree" => CatalogType::Text,
        "text" | "varchar" | "bpchar" if is_qualified => CatalogType::Text,
        "oid" | "xid" | "cid" => CatalogType::Oid,
        "int2" | "int4" | "int8" if is_qualified => CatalogType::Oid,
        "regclass" => CatalogType::Class,
        "regtype" => CatalogType::Type,
        "regnamespace" => CatalogType::Namespace,
        "regrole" => CatalogType::Role,
        "regproc" | "regprocedure" | "regoper" | "regoperator" | "regconfig" | "regdictionary" => {
            CatalogType::OtherObject
        }
        _ => return None,
    })
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Text | DataType::Varchar(_)) || catalog_type(data_type) == Some(CatalogType::Text)
}

impl Rewriter<'_> {
    /// A system table without its schema, or with the database before it.
    fn qualify(&self, name: &mut ObjectName) {
        match parts(name).as_deref() {
            Some([table]) if table.starts_with("pg_") && is_system_table(table) => {
                let hidden = self.facts.relations.iter().any(|r| r.is_user() && r.name == *table);
                if !hidden {
                    name.0.insert(0, tidewire_sql::ast::ObjectNamePart::Identifier(Ident::new("pg_catalog")));
                }
            }
            Some([database, schema, _])
                if *database == self.facts.database
                    && matches!(schema.as_str(), "pg_catalog" | "information_schema") =>
            {
                name.0.remove(0);
            }
            _ => {}
        }
    }

    /// What stands for an expression instead; its parts are visited after.
    fn replaced(&self, expr: &mut Expr) -> Option<Expr> {
        match expr {
            Expr::Cast { expr: inner, data_type, .. } => self.replaced_cast(inner, data_type),
            Expr::Subquery(query) => replaced_subquery(query),
            Expr::Function(function) => self.replaced_call(function),
            _ => None,
        }
    }

    fn replaced_cast(&self, inner: &mut Expr, data_type: &DataType) -> Option<Expr> {
        // The name of what an OID stands for: `x::regclass::text`.
        if is_text(data_type)
            && let Expr::Cast { expr: oid, data_type: object, .. } = inner
            && let Some(kind) = catalog_type(object)
            && let Some(shown) = self.shown(kind, oid)
        {
            return Some(shown);
        }
        match catalog_type(data_type)? {
            CatalogType::Text => Some(cast(take(inner), DataType::Text)),
            CatalogType::Oid => {
                // `'x'::regclass::oid`
                if let Expr::Cast { expr: object, data_type: inner_type, .. } = inner
                    && let Some(kind) = catalog_type(inner_type)
                    && let Some(name) = literal(object)
                {
                    return Some(self.oid_of(kind, name));
                }
                Some(cast(take(inner), DataType::BigInt(None)))
            }
            kind => match literal(inner) {
                Some(name) => Some(self.oid_of(kind, name)),
                None => self.shown(kind, inner).or_else(|| Some(take(inner))),
            },
        }
    }

    /// The name of the object that an OID expression stands for.
    fn shown(&self, kind: CatalogType, oid: &mut Expr) -> Option<Expr> {
        let function = match kind {
            CatalogType::Class => "tidewire_regclass_out",
            CatalogType::Type => "tidewire_regtype_out",
            CatalogType::Namespace => "tidewire_regnamespace_out",
            CatalogType::Role => "tidewire_regrole_out",
            CatalogType::Text | CatalogType::Oid | CatalogType::OtherObject => return None,
        };
        let oid = match literal(oid) {
            Some(name) => self.oid_of(kind, name),
            None => take(oid),
        };
        Some(call(function, vec![oid]))
    }

    /// The OID of a name; a relation that is not there fails as the query runs.
    fn oid_of(&self, kind: CatalogType, name: &str) -> Expr {
        if let Ok(oid) = name.trim().parse::<u32>() {
            return number(i64::from(oid));
        }
        let plain = name.trim().strip_prefix("pg_catalog.").unwrap_or(name.trim()).trim_matches('"');
        let oid = match kind {
            CatalogType::Class => match self.facts.class_named(name) {
                Some(oid) => oid,
                None => {
                    let name = Expr::value(Value::SingleQuotedString(name.to_owned()));
                    return call("tidewire_regclass_in", vec![name]);
                }
            },
            CatalogType::Type => type_oid(plain),
            CatalogType::Namespace => SCHEMAS.iter().find(|(schema, _)| *schema == plain).map_or(0, |(_, oid)| *oid),
            CatalogType::Role => role_oid(plain),
            CatalogType::Text | CatalogType::Oid | CatalogType::OtherObject => 0,
        };
        number(i64::from(oid))
    }

    fn replaced_call(&self, function: &mut Function) -> Option<Expr> {
        let mut name = function.name.clone();
        strip_schema(&mut name);
        let name = match parts(&name)?.as_slice() {
            [name] => name.clone(),
            _ => return None,
        };
        match (name.as_str(), &mut function.args) {
            ("array", FunctionArguments::Subquery(query)) if reads_system_tables(query) => Some(array_of(query)),
            // No relation has options.
            ("array_to_string", FunctionArguments::List(list)) => match first_argument(list)? {
                Expr::BinaryOp { left, op: BinaryOperator::StringConcat, .. } if name_of(left) == "reloptions" => {
                    Some(null_text())
                }
                _ => None,
            },
            ("current_setting", FunctionArguments::List(list)) => {
                let setting = match first_argument(list)? {
                    // Of a row of pg_settings, the value stands beside the name.
                    Expr::CompoundIdentifier(names) if names.last().is_some_and(|name| fold(name) == "name") => {
                        let mut names = names.clone();
                        *names.last_mut()? = Ident::new("setting");
                        return Some(Expr::CompoundIdentifier(names));
                    }
                    setting => literal(setting)?,
                };
                let found = self.cx.settings.iter().find(|(name, ..)| name.eq_ignore_ascii_case(setting));
                Some(match found {
                    Some((_, value, _)) => Expr::value(Value::SingleQuotedString(value.clone())),
                    None => null_text(),
                })
            }
            _ => None,
        }
    }
}

fn first_argument(list: &FunctionArgumentList) -> Option<&Expr> {
    match list.args.first()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn is_system_table(name: &str) -> bool {
    super::tables().any(|table| table.schema == "pg_catalog" && table.name == name)
}

/// The OID of a type by either of its names; 0 for one that is not there.
fn type_oid(name: &str) -> u32 {
    let (element, is_array) = match name.strip_suffix("[]") {
        Some(element) => (element, true),
        None => (name, false),
    };
    let found = oid::TYPES.iter().find(|t| t.name == element || t.sql_name == element);
    found.map_or(0, |t| if is_array { t.array_oid } else { t.oid })
}

/// A scalar subquery over the catalogs that DataFusion cannot plan, since it does not aggregate: the default of a
/// column is a function here, collations never differ from their type's, and of others the largest value is the only.
fn replaced_subquery(query: &mut Query) -> Option<Expr> {
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    let tables = system_tables(&select.from)?;
    if reads_empty(select) || tables.iter().any(|table| table == "pg_collation") {
        return Some(null_text());
    }
    if tables == ["pg_attrdef"] {
        let condition = select.selection.as_ref()?;
        let (relation, column) = (compared_with(condition, "adrelid")?, compared_with(condition, "adnum")?);
        return Some(call("tidewire_column_default", vec![relation, column]));
    }
    if aggregates(select) || !matches!(&select.group_by, GroupByExpr::Expressions(e, _) if e.is_empty()) {
        return None;
    }
    query.order_by = None;
    query.limit_clause = None;
    if let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] = select.projection.as_mut_slice() {
        *expr = call("max", vec![take(expr)]);
    }
    None
}

/// What a conjunct compares a column with: `b` of `x.adrelid = b`.
fn compared_with(condition: &Expr, column: &str) -> Option<Expr> {
    let is_column = |expr: &Expr| match expr {
        Expr::Identifier(name) => fold(name) == column,
        Expr::CompoundIdentifier(names) => names.last().is_some_and(|name| fold(name) == column),
        _ => false,
    };
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            compared_with(left, column).or_else(|| compared_with(right, column))
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } if is_column(left) => Some((**right).clone()),
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } if is_column(right) => Some((**left).clone()),
        Expr::Nested(inner) => compared_with(inner, column),
        _ => None,
    }
}

fn reads_system_tables(query: &Query) -> bool {
    matches!(query.body.as_ref(), SetExpr::Select(select) if system_tables(&select.from).is_some())
}

/// `ARRAY(SELECT x ..)` is `(SELECT array_agg(x) ..)`, and `{}` over an empty table.
fn array_of(query: &mut Query) -> Expr {
    if let SetExpr::Select(select) = query.body.as_mut() {
        if reads_empty(select) {
            return call("tidewire_no_texts", vec![]);
        }
        if let [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] =
            select.projection.as_mut_slice()
        {
            *expr = call("array_agg", vec![take(expr)]);
            query.order_by = None;
        }
    }
    Expr::Subquery(Box::new(query.clone()))
}

/// The names of the tables, when all are system tables.
fn system_tables(from: &[TableWithJoins]) -> Option<Vec<String>> {
    let mut names = vec![];
    for item in from {
        for factor in std::iter::once(&item.relation).chain(item.joins.iter().map(|join| &join.relation)) {
            names.push(system_table(factor)?);
        }
    }
    (!names.is_empty()).then_some(names)
}

fn system_table(factor: &TableFactor) -> Option<String> {
    let TableFactor::Table { name, args: None, .. } = factor else { return None };
    let name = match parts(name)?.as_slice() {
        [schema, name] if schema == "pg_catalog" => name.clone(),
        [name] if name.starts_with("pg_") => name.clone(),
        _ => return None,
    };
    is_system_table(&name).then_some(name)
}

/// Whether a table that is always empty makes the whole result empty.
fn reads_empty(select: &Select) -> bool {
    let is_empty = |factor: &TableFactor| {
        system_table(factor).is_some_and(|name| EMPTY_TABLES.iter().any(|table| table.name == name))
    };
    select.from.iter().any(|item| {
        let keeps_left = |operator: &JoinOperator| {
            matches!(
                operator,
                JoinOperator::Join(_)
                    | JoinOperator::Inner(_)
                    | JoinOperator::CrossJoin(_)
                    | JoinOperator::Left(_)
                    | JoinOperator::LeftOuter(_)
            )
        };
        let is_inner = |operator: &JoinOperator| {
            matches!(operator, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_))
        };
        item.joins.iter().all(|join| keeps_left(&join.join_operator))
            && (is_empty(&item.relation)
                || item.joins.iter().any(|join| is_inner(&join.join_operator) && is_empty(&join.relation)))
    })
}

/// Whether a SELECT list aggregates, so that even an empty input gives a row.
fn aggregates(select: &Select) -> bool {
    select.projection.iter().any(|item| match item {
        SelectItem::UnnamedExpr(Expr::Function(function))
        | SelectItem::ExprWithAlias { expr: Expr::Function(function), .. } => {
            let name = parts(&function.name).and_then(|parts| parts.last().cloned()).unwrap_or_default();
            matches!(
                name.as_str(),
                "count" | "sum" | "min" | "max" | "avg" | "array_agg" | "string_agg" | "bool_or" | "bool_and" | "every"
            )
        }
        _ => false,
    })
}

/// Empties the SELECTs of a body that read an empty table. True: all of them.
fn empty_selects(body: &mut SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => {
            let can_empty = reads_empty(select) && !aggregates(select) && select.projection.iter().all(has_name);
            if can_empty {
                empty(select);
            }
            can_empty
        }
        SetExpr::SetOperation { left, right, .. } => {
            let left = empty_selects(left);
            empty_selects(right) && left
        }
        _ => false,
    }
}

fn has_name(item: &SelectItem) -> bool {
    matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. })
}

fn empty(select: &mut Select) {
    for item in &mut select.projection {
        let alias = match item {
            SelectItem::ExprWithAlias { alias, .. } => alias.clone(),
            SelectItem::UnnamedExpr(expr) => Ident::with_quote('"', name_of(expr)),
            _ => continue,
        };
        *item = SelectItem::ExprWithAlias { expr: null_text(), alias };
    }
    select.from.clear();
    select.selection = Some(Expr::value(Value::Boolean(false)));
    select.group_by = GroupByExpr::Expressions(vec![], vec![]);
    select.having = None;
    select.distinct = None;
}

/// The name that PostgreSQL gives a column without an alias.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => fold(name),
        Expr::CompoundIdentifier(names) => names.last().map(fold).unwrap_or_default(),
        Expr::Function(function) => parts(&function.name).and_then(|mut parts| parts.pop()).unwrap_or_default(),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => name_of(expr),
        _ => "?column?".to_owned(),
    }
}
