//! `jsonb_to_record(j) AS r(a int, ..)` and `jsonb_to_recordset(j)`, and those of json: a subquery that casts each field.

use sqlparser::ast::{
    self, BinaryOperator, CastKind, DataType, Expr, SelectItem, TableAlias, TableFactor, TableWithJoins, Value,
};
use tidewire_sql::sql_type;
use tidewire_types::{Result, SqlError, SqlState, SqlType};

use super::from::{plain_args, quoted, reads_columns};
use crate::dml::select;
use crate::rewrite::call;

const ELEMENT: &str = "element\u{1}record";

/// Rewrites a FROM item that is such a call. Errors: `42601` without a list of columns, `0A000` for a column of arrays.
pub(crate) fn rewrite(table: &mut TableFactor) -> Result<()> {
    let (name, args, alias) = match &*table {
        TableFactor::Table { name, args: Some(args), alias, with_ordinality: false, .. } => (name, &args.args, alias),
        TableFactor::Function { name, args, alias, with_ordinality: false, .. } => (name, args, alias),
        _ => return Ok(()),
    };
    let [part] = name.0.as_slice() else { return Ok(()) };
    let Some(name) = part.as_ident().map(tidewire_sql::fold) else { return Ok(()) };
    let (elements, is_set, json) = match name.as_str() {
        "json_to_record" => ("", false, DataType::JSON),
        "jsonb_to_record" => ("", false, DataType::JSONB),
        "json_to_recordset" => ("json_array_elements", true, DataType::JSON),
        "jsonb_to_recordset" => ("jsonb_array_elements", true, DataType::JSONB),
        _ => return Ok(()),
    };
    let args = plain_args(&name, args)?;
    let [arg] = <[Expr; 1]>::try_from(args)
        .map_err(|_| SqlError::new(SqlState::UndefinedFunction, format!("function {name} takes one argument")))?;
    let Some(alias) = alias.clone().filter(|alias| alias.columns.iter().any(|column| column.data_type.is_some()))
    else {
        let message = "a column definition list is required for functions returning \"record\"";
        return Err(SqlError::new(SqlState::SyntaxError, message));
    };
    let lateral = reads_columns(&arg);
    let document = if is_set { Expr::Identifier(quoted(ELEMENT)) } else { cast(arg.clone(), json) };
    let mut items = vec![];
    for column in &alias.columns {
        let column_name = tidewire_sql::fold(&column.name);
        let data_type = column.data_type.clone().unwrap_or(DataType::Text);
        items.push(SelectItem::ExprWithAlias {
            expr: field(&document, &column_name, data_type)?,
            alias: quoted(&column_name),
        });
    }
    let from = is_set.then(|| {
        let columns = vec![ast::TableAliasColumnDef { name: quoted(ELEMENT), data_type: None }];
        let alias = TableAlias { explicit: true, name: quoted(ELEMENT), columns, at: None };
        let subquery = select(vec![SelectItem::UnnamedExpr(call(elements, vec![arg]))], vec![], None, None);
        let relation = TableFactor::Derived { lateral, subquery: Box::new(subquery), alias: Some(alias), sample: None };
        TableWithJoins { relation, joins: vec![] }
    });
    let subquery = Box::new(select(items, from.into_iter().collect(), None, None));
    let alias = Some(TableAlias { columns: vec![], ..alias });
    *table = TableFactor::Derived { lateral, subquery, alias, sample: None };
    Ok(())
}

fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

/// A field of the document as a value of the type.
fn field(document: &Expr, name: &str, data_type: DataType) -> Result<Expr> {
    let op = match sql_type(&data_type)? {
        SqlType::Json | SqlType::Jsonb => BinaryOperator::Arrow,
        SqlType::Array(_) => return Err(SqlError::unsupported("an array as a column of a record of json")),
        _ => BinaryOperator::LongArrow,
    };
    let key = Box::new(Expr::value(Value::SingleQuotedString(name.to_owned())));
    let value = Expr::Nested(Box::new(Expr::BinaryOp { left: Box::new(document.clone()), op, right: key }));
    Ok(cast(value, data_type))
}
