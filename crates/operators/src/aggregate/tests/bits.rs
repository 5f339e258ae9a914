//! Booleans and bits.

use super::*;

fn words(rows: &[Row]) -> Vec<i64> {
    ints(&present(rows, I))
}

fn bools(rows: &[Row]) -> Vec<bool> {
    present(rows, B).into_iter().map(|v| v == Value::Bool(true)).collect()
}

fn folded(values: Vec<i64>, fold: fn(i64, i64) -> i64) -> Value {
    values.into_iter().reduce(fold).map_or(Value::Null, Value::Int)
}

#[test]
fn booleans_and_bits() {
    let distinct = Call { distinct: true, ..call(Function::BitXor, &[I], DataType::Int32) };
    let filtered = Call { filter: Some(B), ..call(Function::BitOr, &[I], DataType::Int32) };
    let cases = vec![
        case(call(Function::BoolAnd, &[B], DataType::Boolean), |rows| {
            bools(rows).into_iter().reduce(|a, b| a && b).map_or(Value::Null, Value::Bool)
        }),
        case(call(Function::BoolOr, &[B], DataType::Boolean), |rows| {
            bools(rows).into_iter().reduce(|a, b| a || b).map_or(Value::Null, Value::Bool)
        }),
        case(call(Function::BitAnd, &[I], DataType::Int32), |rows| folded(words(rows), |a, b| a & b)),
        case(call(Function::BitOr, &[I], DataType::Int32), |rows| folded(words(rows), |a, b| a | b)),
        case(call(Function::BitXor, &[I], DataType::Int32), |rows| folded(words(rows), |a, b| a ^ b)),
        case(call(Function::BitOr, &[K], DataType::Int64), |rows| folded(ints(&present(rows, K)), |a, b| a | b)),
        case(distinct, |rows| {
            let unique: BTreeSet<i64> = words(rows).into_iter().collect();
            folded(unique.into_iter().collect(), |a, b| a ^ b)
        }),
        case(filtered, |rows| {
            let rows: Vec<Row> = rows.iter().filter(|r| r[B] == Value::Bool(true)).cloned().collect();
            folded(words(&rows), |a, b| a | b)
        }),
    ];
    check_with(&[], &cases);
}
