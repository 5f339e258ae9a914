//! Makes a failing case small: drops statements, rows, columns and parts of queries as long as it fails in the same way.
//!
//! Each function here gives the ways to make its thing one step simpler, the large steps first. A step may give a
//! query that is invalid: then it does not fail in the same way, and is not taken.

use super::case::{Case, Insert, Step};
use super::tree::{Body, Expr, From, Item, On, Part, Query, Select, Sets};

/// The case, a step simpler, in each of the ways there are.
pub(super) fn simpler(case: &Case) -> Vec<Case> {
    let mut all = vec![];
    let n_steps = case.steps.len();
    let mut size = n_steps / 2;
    while size > 0 {
        for start in (0..n_steps).step_by(size) {
            let mut fewer = case.clone();
            fewer.steps.drain(start..(start + size).min(n_steps));
            all.push(fewer);
        }
        size /= 2;
    }
    for idx in 0..case.tables.len() {
        let mut fewer = case.clone();
        fewer.tables.remove(idx);
        all.push(fewer);
    }
    for (idx, step) in case.steps.iter().enumerate() {
        all.extend(simpler_steps(step).into_iter().map(|step| {
            let mut changed = case.clone();
            changed.steps.splice(idx..=idx, [step]);
            changed
        }));
    }
    all.extend(fewer_columns(case));
    all
}

fn fewer_columns(case: &Case) -> Vec<Case> {
    let mut all = vec![];
    for (idx, table) in case.tables.iter().enumerate() {
        for (column, _) in table.columns.iter().enumerate().rev() {
            let mut fewer = case.clone();
            let Some(changed) = fewer.tables.get_mut(idx) else { continue };
            let dropped = changed.columns.remove(column);
            changed.key = changed.key.take().filter(|key| *key != dropped.name);
            for step in &mut fewer.steps {
                if let Step::Insert(insert) = step
                    && insert.table == table.name
                {
                    insert.columns.remove(column);
                    insert.rows.iter_mut().for_each(|row| {
                        row.remove(column);
                    });
                }
            }
            all.push(fewer);
        }
    }
    all
}

fn simpler_steps(step: &Step) -> Vec<Step> {
    match step {
        Step::View(view) => {
            let query = |query| {
                let mut view = view.clone();
                view.query = query;
                Step::View(view)
            };
            queries(&view.query).into_iter().map(query).collect()
        }
        Step::Insert(insert) => {
            let mut all: Vec<Insert> = without_one(&insert.rows)
                .into_iter()
                .filter(|rows| !rows.is_empty())
                .map(|rows| Insert { rows, ..insert.clone() })
                .collect();
            if let Some(conflict) = &insert.conflict {
                all.push(Insert { conflict: None, ..insert.clone() });
                all.extend(exprs(conflict).into_iter().map(|e| Insert { conflict: Some(e), ..insert.clone() }));
            }
            all.into_iter().map(Step::Insert).collect()
        }
        // Only what stands in it: the whole is a statement.
        Step::Sql(sql) => parts(&sql.parts).into_iter().map(|parts| Step::Sql(Expr { ty: sql.ty, parts })).collect(),
    }
}

fn queries(query: &Query) -> Vec<Query> {
    let mut all = vec![];
    // A query inside that gives the same columns may stand for the whole.
    all.extend(inner(&query.body).into_iter().map(|body| Query { body, ..query.clone() }));
    for ctes in without_one(&query.ctes) {
        all.push(Query { ctes, ..query.clone() });
    }
    if query.top.is_some() {
        all.push(Query { top: None, ..query.clone() });
    }
    if let Some(top) = &query.top {
        for changed in [(None, top.offset, top.ties), (top.limit, None, top.ties), (top.limit, top.offset, None)] {
            let (limit, offset, ties) = changed;
            if changed != (top.limit, top.offset, top.ties) {
                let top = super::tree::Top { limit, offset, ties, ..top.clone() };
                all.push(Query { top: Some(top), ..query.clone() });
            }
        }
    }
    all.extend(bodies(&query.body).into_iter().map(|body| Query { body, ..query.clone() }));
    for (idx, cte) in query.ctes.iter().enumerate() {
        for simple in queries(&cte.query) {
            let mut ctes = query.ctes.clone();
            if let Some(cte) = ctes.get_mut(idx) {
                let n_columns = simple.body.n_columns();
                cte.query = simple;
                cte.columns.truncate(n_columns);
            }
            all.push(Query { ctes, ..query.clone() });
        }
    }
    all
}

fn inner(body: &Body) -> Vec<Body> {
    match body {
        Body::Set(left, _, right) => vec![(**left).clone(), (**right).clone()],
        Body::Nested(query) => vec![query.body.clone()],
        Body::Select(select) => {
            let mut all = vec![];
            for from in &select.from {
                if let From::Query { query, .. } = from {
                    all.push(query.body.clone());
                }
            }
            all
        }
        Body::Values(_) | Body::Text(_) => vec![],
    }
}

fn bodies(body: &Body) -> Vec<Body> {
    match body {
        Body::Select(select) => selects(select).into_iter().map(|s| Body::Select(Box::new(s))).collect(),
        Body::Set(left, op, right) => {
            let set = |left: &Body, right: &Body| Body::Set(Box::new(left.clone()), op, Box::new(right.clone()));
            let mut all: Vec<Body> = vec![];
            for column in 0..body.n_columns() {
                if let (Some(left), Some(right)) = (without_column(left, column), without_column(right, column)) {
                    all.push(set(&left, &right));
                }
            }
            all.extend(inner(left).iter().chain(&bodies(left)).map(|left| set(left, right)));
            all.extend(inner(right).iter().chain(&bodies(right)).map(|right| set(left, right)));
            all
        }
        Body::Values(rows) => without_one(rows).into_iter().filter(|r| !r.is_empty()).map(Body::Values).collect(),
        Body::Nested(query) => queries(query).into_iter().map(|q| Body::Nested(Box::new(q))).collect(),
        Body::Text(_) => vec![],
    }
}

fn without_column(body: &Body, column: usize) -> Option<Body> {
    if body.n_columns() < 2 {
        return None;
    }
    Some(match body {
        Body::Select(select) => {
            let mut select = select.clone();
            select.items.remove(column);
            Body::Select(select)
        }
        Body::Set(left, op, right) => {
            Body::Set(Box::new(without_column(left, column)?), op, Box::new(without_column(right, column)?))
        }
        Body::Values(rows) => Body::Values(
            rows.iter()
                .map(|row| {
                    let mut row = row.clone();
                    row.remove(column);
                    row
                })
                .collect(),
        ),
        Body::Nested(query) => {
            Body::Nested(Box::new(Query { body: without_column(&query.body, column)?, ..(**query).clone() }))
        }
        Body::Text(_) => return None,
    })
}

fn selects(select: &Select) -> Vec<Select> {
    let mut all = vec![];
    let mut add = |change: &dyn Fn(&mut Select)| {
        let mut changed = select.clone();
        change(&mut changed);
        all.push(changed);
    };
    for (idx, _) in select.from.iter().enumerate().filter(|_| select.from.len() > 1) {
        add(&|s| {
            let gone = aliases(&s.from.remove(idx));
            forget(s, &gone);
        });
    }
    for (idx, from) in select.from.iter().enumerate() {
        for (simple, gone) in froms(from) {
            add(&|s| {
                s.from.splice(idx..=idx, [simple.clone()]);
                forget(s, &gone);
            });
        }
    }
    if select.filter.is_some() {
        add(&|s| s.filter = None);
    }
    if select.having.is_some() {
        add(&|s| s.having = None);
    }
    if select.distinct {
        add(&|s| s.distinct = false);
    }
    if select.distinct_on > 0 {
        add(&|s| s.distinct_on = 0);
        add(&|s| s.distinct_on = 1);
    }
    if select.window.is_some() {
        add(&|s| s.window = None);
    }
    for (idx, _) in select.items.iter().enumerate().filter(|_| select.items.len() > 1).rev() {
        add(&|s| {
            s.items.remove(idx);
        });
    }
    if let Some(grouping) = &select.grouping {
        add(&|s| s.grouping = None);
        for keys in without_one(&grouping.keys) {
            add(&|s| s.grouping.iter_mut().for_each(|g| g.keys = keys.clone()));
        }
        if !matches!(grouping.sets, Sets::One) {
            add(&|s| s.grouping.iter_mut().for_each(|g| g.sets = Sets::One));
        }
        if let Sets::Listed(sets) = &grouping.sets {
            for sets in without_one(sets) {
                add(&|s| s.grouping.iter_mut().for_each(|g| g.sets = Sets::Listed(sets.clone())));
            }
        }
    }
    for (idx, item) in select.items.iter().enumerate() {
        // The type may not matter.
        if item.expr.to_string() != "1" {
            let one = Expr::text(super::types::Type::Int4, "1");
            add(&|s| {
                let item = Item { expr: one.clone(), name: item.name.clone() };
                s.items.splice(idx..=idx, [item]);
            });
        }
        for expr in exprs(&item.expr) {
            add(&|s| {
                let item = Item { expr: expr.clone(), name: item.name.clone() };
                s.items.splice(idx..=idx, [item]);
            });
        }
    }
    for expr in select.filter.iter().flat_map(exprs) {
        add(&|s| s.filter = Some(expr.clone()));
    }
    for expr in select.having.iter().flat_map(exprs) {
        add(&|s| s.having = Some(expr.clone()));
    }
    all
}

/// Simpler items, and the names that are gone with what was dropped.
fn froms(from: &From) -> Vec<(From, Vec<String>)> {
    match from {
        From::Relation { .. } => vec![],
        From::Query { query, alias, lateral } => {
            let of = |query: Query| {
                (From::Query { query: Box::new(query), alias: alias.clone(), lateral: *lateral }, vec![])
            };
            let mut all: Vec<_> = queries(query).into_iter().map(of).collect();
            if *lateral {
                all.insert(0, (From::Query { query: query.clone(), alias: alias.clone(), lateral: false }, vec![]));
            }
            all
        }
        From::Function { call, alias } => {
            let of = |call| (From::Function { call, alias: alias.clone() }, vec![]);
            let call = parts(&call.parts).into_iter().map(|parts| Expr { ty: call.ty, parts });
            call.map(of).collect()
        }
        From::Join { left, kind, right, on } => {
            let mut all = vec![((**left).clone(), aliases(right)), ((**right).clone(), aliases(left))];
            let join = |left: &From, right: &From, on: &On, kind| From::Join {
                left: Box::new(left.clone()),
                kind,
                right: Box::new(right.clone()),
                on: on.clone(),
            };
            if !matches!(*kind, "JOIN" | "CROSS JOIN") && !kind.starts_with("NATURAL") {
                all.push((join(left, right, on, "JOIN"), vec![]));
            }
            if let On::Using(columns) = on {
                let fewer = without_one(columns).into_iter().filter(|c| !c.is_empty());
                all.extend(fewer.map(|c| (join(left, right, &On::Using(c), kind), vec![])));
            }
            if let On::Expr(condition) = on {
                let simple = exprs(condition).into_iter();
                all.extend(simple.map(|e| (join(left, right, &On::Expr(e), kind), vec![])));
            }
            // A condition may name what is gone: its columns become literals.
            for (simple, gone) in froms(left) {
                all.push((join(&simple, right, &forget_on(on, &gone), kind), gone));
            }
            for (simple, gone) in froms(right) {
                all.push((join(left, &simple, &forget_on(on, &gone), kind), gone));
            }
            all
        }
    }
}

fn aliases(from: &From) -> Vec<String> {
    match from {
        From::Relation { alias, .. } | From::Query { alias, .. } | From::Function { alias, .. } => {
            vec![alias.split('(').next().unwrap_or(alias).to_string()]
        }
        From::Join { left, right, .. } => [aliases(left), aliases(right)].concat(),
    }
}

fn forget_on(on: &On, gone: &[String]) -> On {
    match on {
        On::Expr(expr) => {
            let mut expr = expr.clone();
            forget_in(&mut expr, gone);
            On::Expr(expr)
        }
        other => other.clone(),
    }
}

/// Puts literals in the place of columns whose item of FROM is gone.
fn forget(select: &mut Select, gone: &[String]) {
    if gone.is_empty() {
        return;
    }
    let items = select.items.iter_mut().map(|i| &mut i.expr);
    let keys = select.grouping.iter_mut().flat_map(|g| &mut g.keys);
    for expr in items.chain(&mut select.filter).chain(&mut select.having).chain(keys) {
        forget_in(expr, gone);
    }
    select.from.iter_mut().for_each(|from| forget_from(from, gone));
}

fn forget_from(from: &mut From, gone: &[String]) {
    match from {
        From::Relation { .. } => {}
        From::Query { query, .. } => forget_query(query, gone),
        From::Function { call, .. } => forget_in(call, gone),
        From::Join { left, right, on, .. } => {
            forget_from(left, gone);
            forget_from(right, gone);
            if let On::Expr(expr) = on {
                forget_in(expr, gone);
            }
        }
    }
}

fn forget_query(query: &mut Query, gone: &[String]) {
    forget_body(&mut query.body, gone);
}

fn forget_body(body: &mut Body, gone: &[String]) {
    match body {
        Body::Select(select) => forget(select, gone),
        Body::Set(left, _, right) => {
            forget_body(left, gone);
            forget_body(right, gone);
        }
        Body::Values(rows) => rows.iter_mut().flatten().for_each(|expr| forget_in(expr, gone)),
        Body::Nested(query) => forget_query(query, gone),
        Body::Text(_) => {}
    }
}

fn forget_in(expr: &mut Expr, gone: &[String]) {
    if let [Part::Text(text)] = expr.parts.as_mut_slice() {
        let names = |alias: &String| {
            text.strip_prefix(alias.as_str()).is_some_and(|rest| rest.starts_with('.') && !rest.contains(' '))
        };
        if gone.iter().any(names) {
            *text = expr.ty.plain();
        } else if gone.iter().any(|alias| text.contains(&format!("{alias}.")) && text.contains(" = ")) {
            *text = "TRUE".into();
        }
        return;
    }
    forget_parts(&mut expr.parts, gone);
}

fn forget_parts(parts: &mut [Part], gone: &[String]) {
    for part in parts {
        match part {
            Part::Expr(expr) => forget_in(expr, gone),
            Part::Query(query) => forget_query(query, gone),
            Part::Optional(parts) => forget_parts(parts, gone),
            Part::Text(_) | Part::Again(_) => {}
        }
    }
}

/// An expression inside of the same type, a literal, or one whose arguments are simpler.
fn exprs(expr: &Expr) -> Vec<Expr> {
    if let [Part::Text(text)] = expr.parts.as_slice() {
        let plain = expr.ty.plain();
        let is_column = text.starts_with('q') && !text.contains(' ');
        // `1` is what a column of a result becomes.
        return if *text == plain || text == "1" || is_column { vec![] } else { vec![Expr::text(expr.ty, plain)] };
    }
    let mut all = vec![];
    collect_inside(&expr.parts, &mut |inside| {
        if inside.ty == expr.ty {
            all.push(inside.clone());
        }
    });
    all.push(Expr::text(expr.ty, expr.ty.plain()));
    all.extend(parts(&expr.parts).into_iter().map(|parts| Expr { ty: expr.ty, parts }));
    all
}

fn collect_inside(parts: &[Part], found: &mut dyn FnMut(&Expr)) {
    for part in parts {
        match part {
            Part::Expr(expr) => {
                found(expr);
                collect_inside(&expr.parts, found);
            }
            Part::Optional(parts) => collect_inside(parts, found),
            _ => {}
        }
    }
}

fn parts(all_parts: &[Part]) -> Vec<Vec<Part>> {
    let mut all = vec![];
    for (idx, part) in all_parts.iter().enumerate() {
        let mut with = |new: Option<Part>| {
            let mut changed = all_parts.to_vec();
            changed.splice(idx..=idx, new);
            all.push(changed);
        };
        match part {
            Part::Text(_) | Part::Again(_) => {}
            Part::Expr(expr) => exprs(expr).into_iter().for_each(|e| with(Some(Part::Expr(e)))),
            Part::Query(query) => queries(query).into_iter().for_each(|q| with(Some(Part::Query(Box::new(q))))),
            Part::Optional(inside) => {
                with(None);
                parts(inside).into_iter().for_each(|p| with(Some(Part::Optional(p))));
            }
        }
    }
    all
}

fn without_one<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    let without = |idx: usize| {
        let mut fewer = items.to_vec();
        fewer.remove(idx);
        fewer
    };
    (0..items.len()).map(without).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::features::Features;
    use crate::fuzz::generate;

    /// Takes steps as long as the script has the word.
    fn shrunk(mut case: Case, word: &str) -> String {
        while let Some(smaller) = simpler(&case).into_iter().find(|c| c.to_string().contains(word)) {
            case = smaller;
        }
        case.to_string()
    }

    #[test]
    fn what_does_not_matter_goes() {
        let mut n_shrunk = 0;
        for seed in 1..200 {
            let case = generate::case(seed, &Features::default());
            if case.to_string().contains(" FULL JOIN ") {
                let script = shrunk(case, " FULL JOIN ");
                // A view's query is in it twice, and a join may stand under three or four constructs that hold it.
                assert!(script.len() < 1000, "seed {seed}: {script}");
                n_shrunk += 1;
            }
        }
        assert!(n_shrunk > 3);
    }

    #[test]
    fn a_case_follows_from_its_seed() {
        for seed in 1..50 {
            let script = || generate::case(seed, &Features::default()).to_string();
            assert_eq!(script(), script());
        }
    }
}
