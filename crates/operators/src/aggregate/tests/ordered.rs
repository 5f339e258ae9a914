//! Percentiles, mode, hypothetical ranks.

use super::*;

fn floats(rows: &[Row]) -> Vec<f64> {
    let mut values = present(rows, F);
    values.sort();
    values.iter().filter_map(Value::as_float).collect()
}

fn interpolated(values: &[f64], fraction: f64) -> Value {
    if values.is_empty() {
        return Value::Null;
    }
    let position = fraction * (values.len() - 1) as f64;
    let (low, high) = (values[position.floor() as usize], values[position.ceil() as usize]);
    Value::float(low + (position - position.floor()) * (high - low))
}

fn by_column(column: usize, descending: bool) -> Vec<SortKey> {
    vec![SortKey { column, descending, nulls_first: false }]
}

fn most_frequent(values: &[Value], is_better: fn(&Value, &Value) -> bool) -> Value {
    let mut counts: BTreeMap<Value, usize> = BTreeMap::new();
    values.iter().for_each(|v| *counts.entry(v.clone()).or_default() += 1);
    let mut best: Option<(Value, usize)> = None;
    for (value, n) in counts {
        let is_more = best.as_ref().is_none_or(|(v, m)| n > *m || (n == *m && is_better(&value, v)));
        if is_more {
            best = Some((value, n));
        }
    }
    best.map_or(Value::Null, |(value, _)| value)
}

/// NULL counts as greater than 1.
fn before_one(rows: &[Row]) -> Vec<Value> {
    rows.iter().map(|r| r[I].clone()).filter(|v| *v < Value::Int(1)).collect()
}

#[test]
fn ordered_and_hypothetical_sets() {
    let function = |f| Function::Ordered(f);
    let ordered = |f, args: &[usize], to, column, descending| Call {
        order_by: by_column(column, descending),
        ..call(function(f), args, to)
    };
    let disc = |values: &[Value], fraction: f64| {
        let row = (fraction * values.len() as f64).ceil() as usize;
        values.get(row.max(1) - 1).cloned().unwrap_or(Value::Null)
    };
    let list = DataType::List(Arc::new(Field::new("item", DataType::Float64, true)));
    let cases = vec![
        case(ordered(Ordered::PercentileCont, &[7, F], DataType::Float64, F, false), |rows| {
            interpolated(&floats(rows), 0.3)
        }),
        case(ordered(Ordered::PercentileCont, &[7, F], DataType::Float64, F, true), |rows| {
            let mut values = floats(rows);
            values.reverse();
            interpolated(&values, 0.3)
        }),
        case(ordered(Ordered::PercentileDisc, &[7, S], DataType::Utf8View, S, false), move |rows| {
            let mut values = present(rows, S);
            values.sort();
            disc(&values, 0.3)
        }),
        case(ordered(Ordered::PercentileDisc, &[7, I], DataType::Int32, I, true), move |rows| {
            let mut values = present(rows, I);
            values.sort();
            values.reverse();
            disc(&values, 0.3)
        }),
        case(ordered(Ordered::PercentileCont, &[8, F], list, F, false), |rows| {
            let values = floats(rows);
            if values.is_empty() {
                return Value::Null;
            }
            let shown = |f| interpolated(&values, f).as_float().unwrap();
            let array = [Some(shown(0.0)), None, Some(shown(1.0))];
            let array =
                arrow::array::ListArray::from_iter_primitive::<arrow::datatypes::Float64Type, _, _>([Some(array)]);
            Value::Text(arrow::util::display::array_value_to_string(&array, 0).unwrap())
        }),
        case(ordered(Ordered::Mode, &[S], DataType::Utf8View, S, false), |rows| {
            most_frequent(&present(rows, S), |a, b| a < b)
        }),
        case(ordered(Ordered::Mode, &[I], DataType::Int32, I, true), |rows| {
            most_frequent(&present(rows, I), |a, b| a > b)
        }),
        case(ordered(Ordered::Rank, &[9, I], DataType::Int64, I, false), |rows| {
            Value::Int(before_one(rows).len() as i64 + 1)
        }),
        case(ordered(Ordered::DenseRank, &[9, I], DataType::Int64, I, false), |rows| {
            Value::Int(before_one(rows).into_iter().collect::<BTreeSet<_>>().len() as i64 + 1)
        }),
        case(ordered(Ordered::PercentRank, &[9, I], DataType::Float64, I, false), |rows| {
            let n = rows.len().max(1) as f64;
            Value::float(before_one(rows).len() as f64 / n)
        }),
        case(ordered(Ordered::CumeDist, &[9, I], DataType::Float64, I, false), |rows| {
            let up_to = rows.iter().filter(|r| r[I] <= Value::Int(1)).count() + 1;
            Value::float(up_to as f64 / (rows.len() + 1) as f64)
        }),
    ];
    let fractions = ScalarValue::new_list_nullable(
        &[ScalarValue::Float64(Some(0.0)), ScalarValue::Float64(None), ScalarValue::Float64(Some(1.0))],
        &DataType::Float64,
    );
    let constants = [ScalarValue::Float64(Some(0.3)), ScalarValue::List(fractions), ScalarValue::Int64(Some(1))];
    check_with(&constants, &cases);
}

/// A row costs the logarithm of its group, not the group.
#[test]
fn one_row_of_a_large_group_is_cheap() {
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true), Field::new("f", DataType::Float64, false)]));
    let order_by = by_column(0, false);
    let median = Call { order_by, ..call(Function::Ordered(Ordered::PercentileCont), &[1, 0], DataType::Float64) };
    let plan = Aggregate {
        keys: vec![],
        calls: vec![median],
        append_only: false,
        input: schema.clone(),
        schema: Arc::new(Schema::new(vec![Field::new("m", DataType::Float64, true)])),
    };
    let mut operator = plan.build(0).unwrap();
    let steps = Steps::default();
    let rows = |values: &mut dyn Iterator<Item = i64>| {
        let rows: Vec<Row> = values.map(|v| vec![Value::Int(v), Value::float(0.5)]).collect();
        batch(&schema, &rows.iter().collect::<Vec<_>>())
    };
    let n = 200_000;
    operator.step(&mut [vec![Delta::insert(rows(&mut (0..n)))]], &steps.context(1), &mut vec![]).unwrap();
    // If each step walked over the group, this would be two billion rows.
    for epoch in 0..10_000 {
        let mut out = vec![];
        let value = i64::from(epoch) * 7919 % n;
        operator
            .step(
                &mut [vec![Delta::delete(rows(&mut std::iter::once(value)))]],
                &steps.context(2 + epoch * 2),
                &mut out,
            )
            .unwrap();
        operator
            .step(
                &mut [vec![Delta::insert(rows(&mut std::iter::once(value)))]],
                &steps.context(3 + epoch * 2),
                &mut out,
            )
            .unwrap();
        let shown = out.last().map(|delta| crate::testing::rows(delta.rows()));
        assert_eq!(shown.and_then(|rows| rows.last().cloned()), Some(vec![Value::float((n - 1) as f64 / 2.0)]));
    }
}
