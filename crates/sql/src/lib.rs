//! SQL text to Tidewire statements, and nothing else: no catalog, no names resolved.
//!
//! A thin parser over sqlparser: what is ours is parsed here (a file for each family of statements), expressions,
//! queries and DML by sqlparser under our own dialect. PostgreSQL's rules for quoting and case hold.
//! Invariant: no text makes it panic or overflow the stack, and its time is at most quadratic in the text's length.

mod copy;
mod create;
mod create_index;
mod cursor;
mod data_type;
mod depth;
mod dialect;
mod errors;
mod exclude;
mod options;
mod parser;
mod rows_from;
mod session;
mod show;
mod source;
mod spelling;
mod statement;
mod subscribe;
mod walk;

use std::ops::ControlFlow;

pub use data_type::{is_collation, sql_type};
pub use dialect::TidewireDialect;
pub use exclude::EXCLUDE;
pub use parser::is_reserved;
pub use rows_from::ROWS_FROM;
pub use sqlparser::ast;
pub use statement::*;
use tidewire_types::Result;
pub use walk::{has_expr, own_exprs, own_exprs_mut, walk, walk_mut};

/// Parses a text of any number of statements separated by semicolons.
///
/// Nothing between two semicolons is left out; a text that is all blank gives one [`Statement::Empty`].
/// Errors: `42601` with the position in `text`, in the words of PostgreSQL (`syntax error at or near "x"`); `54001` for
/// what is nested too deeply; `0A000` for parts of statements that Tidewire does not have.
pub fn parse(text: &str) -> Result<Vec<Parsed>> {
    parser::parse_text(text)
}

/// The names of the columns that an expression reads, as it writes them.
pub fn column_names(expr: &ast::Expr) -> Vec<String> {
    let mut names = vec![];
    let _ = ast::visit_expressions(expr, |expr| {
        names.extend(match expr {
            ast::Expr::Identifier(ident) => Some(fold(ident)),
            ast::Expr::CompoundIdentifier(parts) => parts.last().map(fold),
            _ => None,
        });
        ControlFlow::<()>::Continue(())
    });
    names
}

/// Parses one expression, such as a stored column default.
///
/// Errors: as [`parse`].
pub fn parse_expr(text: &str) -> Result<ast::Expr> {
    parser::parse_expression(text)
}
