//! Variance and regression, computed plainly in whole numbers.

use super::*;

const VARIANCE: DataType = DataType::Decimal128(38, 16);

/// n, then n times the sum of the products of deviations.
fn deviations(pairs: &[(i128, i128)]) -> (i128, i128) {
    let n = pairs.len() as i128;
    let (a, b): (i128, i128) = (pairs.iter().map(|p| p.0).sum(), pairs.iter().map(|p| p.1).sum());
    (n, n * pairs.iter().map(|p| p.0 * p.1).sum::<i128>() - a * b)
}

fn squares(values: &[i64]) -> (i128, i128) {
    deviations(&values.iter().map(|v| (i128::from(*v), i128::from(*v))).collect::<Vec<_>>())
}

/// `dividend / divisor` with 16 digits behind the point, from one with 20 as PostgreSQL has where it is below 1.
fn quotient(dividend: i128, divisor: i128) -> Value {
    let rounded = |value: i128, divisor: i128| (value * 2 + divisor) / (divisor * 2);
    Value::Decimal(rounded(rounded(dividend * 10i128.pow(20), divisor), 10_000))
}

/// (y, x) of the rows where both are there.
fn pairs(rows: &[Row]) -> Vec<(i128, i128)> {
    let pair = |r: &Row| match (&r[I], &r[K]) {
        (Value::Int(y), Value::Int(x)) => Some((i128::from(*y), i128::from(*x))),
        _ => None,
    };
    rows.iter().filter_map(pair).collect()
}

fn of_pairs(rows: &[Row], result: impl Fn(f64, f64, f64, f64) -> Option<f64>) -> Value {
    let pairs = pairs(rows);
    let (n, sxy) = deviations(&pairs);
    let syy = deviations(&pairs.iter().map(|p| (p.0, p.0)).collect::<Vec<_>>()).1;
    let sxx = deviations(&pairs.iter().map(|p| (p.1, p.1)).collect::<Vec<_>>()).1;
    if n == 0 {
        return Value::Null;
    }
    result(n as f64, sxx as f64, syy as f64, sxy as f64).map_or(Value::Null, Value::float)
}

#[test]
fn variances_of_integers_are_numerics() {
    let function = |s| Function::Statistic(s);
    let distinct = |c: Call| Call { distinct: true, ..c };
    let cases = vec![
        case(call(function(Statistic::VarPop), &[I], VARIANCE), |rows| {
            or_null(&present(rows, I), |v| {
                let (n, d) = squares(&ints(v));
                quotient(d, n * n)
            })
        }),
        case(call(function(Statistic::VarSamp), &[I], VARIANCE), |rows| {
            let (n, d) = squares(&ints(&present(rows, I)));
            if n < 2 { Value::Null } else { quotient(d, n * (n - 1)) }
        }),
        case(distinct(call(function(Statistic::VarPop), &[I], VARIANCE)), |rows| {
            let unique: BTreeSet<i64> = ints(&present(rows, I)).into_iter().collect();
            let (n, d) = squares(&unique.into_iter().collect::<Vec<_>>());
            if n == 0 { Value::Null } else { quotient(d, n * n) }
        }),
        case(call(function(Statistic::VarPop), &[D], VARIANCE), |rows| {
            let cents = |v: &Value| if let Value::Decimal(d) = v { *d as i64 } else { 0 };
            let values: Vec<i64> = present(rows, D).iter().map(cents).collect();
            let (n, d) = squares(&values);
            if n == 0 { Value::Null } else { quotient(d, n * n * 10_000) }
        }),
    ];
    check_with(&[], &cases);
}

#[test]
fn regression_over_pairs() {
    use Statistic as S;
    let of = |s| call(Function::Statistic(s), &[I, K], DataType::Float64);
    let cases = vec![
        case(call(Function::Statistic(S::RegrCount), &[I, K], DataType::Int64), |rows| {
            Value::Int(pairs(rows).len() as i64)
        }),
        case(of(S::CovarPop), |rows| of_pairs(rows, |n, _, _, sxy| Some(sxy / n / n))),
        case(of(S::CovarSamp), |rows| of_pairs(rows, |n, _, _, sxy| (n > 1.0).then_some(sxy / n / (n - 1.0)))),
        case(of(S::RegrSxx), |rows| of_pairs(rows, |n, sxx, _, _| Some(sxx / n))),
        case(of(S::RegrSyy), |rows| of_pairs(rows, |n, _, syy, _| Some(syy / n))),
        case(of(S::RegrSxy), |rows| of_pairs(rows, |n, _, _, sxy| Some(sxy / n))),
        case(of(S::RegrSlope), |rows| of_pairs(rows, |_, sxx, _, sxy| (sxx > 0.0).then_some(sxy / sxx))),
        case(of(S::RegrR2), |rows| {
            of_pairs(rows, |_, sxx, syy, sxy| {
                (sxx > 0.0).then_some(if syy == 0.0 { 1.0 } else { (sxy / sxx) * (sxy / syy) })
            })
        }),
        case(of(S::Corr), |rows| {
            of_pairs(rows, |_, sxx, syy, sxy| {
                (sxx > 0.0 && syy > 0.0).then(|| (sxy / (sxx.sqrt() * syy.sqrt())).clamp(-1.0, 1.0))
            })
        }),
        case(of(S::RegrAvgx), |rows| {
            let sum: i128 = pairs(rows).iter().map(|p| p.1).sum();
            of_pairs(rows, |n, _, _, _| Some(sum as f64 / n))
        }),
    ];
    check_with(&[], &cases);
}

/// Over floats of all magnitudes: what left leaves no trace.
#[test]
fn variances_of_floats_do_not_drift() {
    let cases = vec![case(call(Function::Statistic(Statistic::VarPop), &[F], DataType::Float64), |rows| {
        let values: Vec<f64> = present(rows, F).iter().filter_map(Value::as_float).collect();
        if values.is_empty() {
            return Value::Null;
        }
        // Whole numbers of 2^-140 would do; a fresh group shows the same.
        let column: ArrayRef = Arc::new(arrow::array::Float64Array::from(values));
        let field = Arc::new(Field::new("v", DataType::Float64, true));
        let mut fresh = super::super::statistics::statistics(Statistic::VarPop, &[DataType::Float64], &field);
        fresh.grow(1);
        fresh.apply(&vec![0; column.len()], &[column], None).unwrap();
        match fresh.evaluate(0).unwrap() {
            ScalarValue::Float64(Some(value)) => Value::float(value),
            _ => Value::Null,
        }
    })];
    check_with(&[], &cases);
}
