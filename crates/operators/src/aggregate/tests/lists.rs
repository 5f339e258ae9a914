//! Rows put together in order.

use super::*;

const BY_INT: SortKey = SortKey { column: I, descending: true, nulls_first: false };

/// Largest integer first, NULL last; then by a column.
fn sorted(rows: &[Row], then: usize) -> Vec<Row> {
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| {
        let order = match (&a[I], &b[I]) {
            (Value::Int(x), Value::Int(y)) => y.cmp(x),
            (x, y) => x.cmp(y),
        };
        order.then(a[then].cmp(&b[then]))
    });
    rows
}

fn texts(rows: &[Row]) -> Vec<String> {
    present(rows, S).into_iter().map(|v| if let Value::Text(t) = v { t } else { String::new() }).collect()
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

#[test]
fn rows_are_put_together_in_order() {
    let ordered = |c: Call| Call { order_by: vec![BY_INT], ..c };
    let function = |list| Function::List(list);
    let cases = vec![
        case(ordered(call(function(List::Text), &[S, 7], DataType::Utf8View)), |rows| {
            let all = texts(&sorted(rows, S));
            if all.is_empty() { Value::Null } else { Value::Text(all.join("; ")) }
        }),
        case(Call { distinct: true, ..call(function(List::Text), &[S, 7], DataType::Utf8View) }, |rows| {
            let all: BTreeSet<String> = texts(rows).into_iter().collect();
            let all: Vec<String> = all.into_iter().collect();
            if all.is_empty() { Value::Null } else { Value::Text(all.join("; ")) }
        }),
        case(Call { filter: Some(B), ..ordered(call(function(List::Array), &[K], list(DataType::Int64))) }, |rows| {
            let rows: Vec<Row> = rows.iter().filter(|r| r[B] == Value::Bool(true)).cloned().collect();
            let shown = |v: &Row| if let Value::Int(i) = v[K] { i.to_string() } else { String::new() };
            let all: Vec<String> = sorted(&rows, K).iter().map(shown).collect();
            if all.is_empty() { Value::Null } else { Value::Text(format!("[{}]", all.join(", "))) }
        }),
        // The text stands for json that was made before.
        case(ordered(call(function(List::Json), &[S], DataType::Utf8View)), |rows| {
            let shown = |r: &Row| if let Value::Text(t) = &r[S] { t.clone() } else { "null".to_owned() };
            let all: Vec<String> = sorted(rows, S).iter().map(shown).collect();
            if all.is_empty() { Value::Null } else { Value::Text(format!("[{}]", all.join(", "))) }
        }),
        case(ordered(call(function(List::First), &[S], DataType::Utf8View)), |rows| {
            sorted(rows, S).first().map_or(Value::Null, |r| r[S].clone())
        }),
        case(ordered(call(function(List::Last), &[K], DataType::Int64)), |rows| {
            sorted(rows, K).last().map_or(Value::Null, |r| r[K].clone())
        }),
        case(call(function(List::Any), &[S], DataType::Utf8View), |rows| {
            present(rows, S).into_iter().min().unwrap_or(Value::Null)
        }),
    ];
    check_with(&[ScalarValue::Utf8View(Some("; ".into()))], &cases);
}

#[test]
fn a_key_that_is_null_makes_no_object_until_it_leaves() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8View, true),
        Field::new("v", DataType::Utf8View, true),
    ]));
    let result = Field::new("o", DataType::Utf8View, true);
    let plan = Aggregate {
        keys: vec![],
        calls: vec![call(Function::List(List::JsonObject), &[0, 1], DataType::Utf8View)],
        append_only: false,
        input: schema.clone(),
        schema: Arc::new(Schema::new(vec![result])),
    };
    let mut operator = plan.build(0).unwrap();
    let steps = Steps::default();
    let text = |t: &str| Value::Text(t.into());
    let rows = |rows: &[Row]| batch(&schema, &rows.iter().collect::<Vec<_>>());
    let mut output = Accumulated::default();
    let mut step = |epoch: u32, delta: Delta| {
        let mut out = vec![];
        operator.step(&mut [vec![delta]], &steps.context(epoch), &mut out).unwrap();
        output.add(&out);
        output.rows().iter().filter(|(_, n)| **n > 0).map(|(row, _)| row.clone()).collect::<Vec<_>>()
    };
    let (good, bad) = (vec![text("a\"b"), text("1")], vec![Value::Null, text("2")]);
    assert_eq!(step(1, Delta::insert(rows(std::slice::from_ref(&good)))), [[text("{ \"a\\\"b\" : 1 }")]]);
    assert_eq!(step(2, Delta::insert(rows(std::slice::from_ref(&bad)))), Vec::<Row>::new());
    assert_eq!(steps.row_errors()[0].error.message(), "field name must not be null");
    assert_eq!(step(3, Delta::delete(rows(&[bad]))), [[text("{ \"a\\\"b\" : 1 }")]]);
    assert!(steps.row_errors().is_empty());
}
