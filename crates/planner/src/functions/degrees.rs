//! Trigonometry in degrees, exact where the value is: `sind(30)` is 0.5; `degrees` and `radians`.
//!
//! Angles are taken to the first quadrant, and values are scaled by those of the angles that are known exactly. Source:
//! PostgreSQL's `float.c`.

use super::defined::Definition;
use super::floats::{each, in_range, of_angle, of_one, of_two, pairs, within};

const RADIANS_OF_DEGREE: f64 = std::f64::consts::PI / 180.0;

/// The functions.
pub(super) static ALL: &[Definition] = &[
    Definition {
        name: "degrees",
        resolve: |types| of_one(types, |c, _| each(c, |x| in_range(x / RADIANS_OF_DEGREE, x.is_finite(), true))),
    },
    Definition { name: "radians", resolve: |types| of_one(types, |c, _| each(c, |x| Ok(x * RADIANS_OF_DEGREE))) },
    Definition { name: "sind", resolve: |types| of_one(types, |c, _| each(c, |x| of_angle(x, sind))) },
    Definition { name: "cosd", resolve: |types| of_one(types, |c, _| each(c, |x| of_angle(x, cosd))) },
    Definition { name: "tand", resolve: |types| of_one(types, |c, _| each(c, |x| of_angle(x, tand))) },
    Definition { name: "cotd", resolve: |types| of_one(types, |c, _| each(c, |x| of_angle(x, cotd))) },
    Definition { name: "asind", resolve: |types| of_one(types, |c, _| each(c, |x| within(x, (-1.0, 1.0), asind))) },
    Definition { name: "acosd", resolve: |types| of_one(types, |c, _| each(c, |x| within(x, (-1.0, 1.0), acosd))) },
    Definition { name: "atand", resolve: |types| of_one(types, |c, _| each(c, |x| Ok(arc(x.atan())))) },
    Definition { name: "atan2d", resolve: |types| of_two(types, |c, _| pairs(c, |y, x| Ok(arc(y.atan2(x))))) },
];

fn sin_to_30(x: f64) -> f64 {
    x.to_radians().sin() / 30_f64.to_radians().sin() / 2.0
}

fn cos_to_60(x: f64) -> f64 {
    1.0 - (1.0 - x.to_radians().cos()) / (1.0 - 60_f64.to_radians().cos()) / 2.0
}

/// Of an angle from 0 to 90.
fn sin_of_quadrant(x: f64) -> f64 {
    if x <= 30.0 { sin_to_30(x) } else { cos_to_60(90.0 - x) }
}

/// Of an angle from 0 to 90.
fn cos_of_quadrant(x: f64) -> f64 {
    if x <= 60.0 { cos_to_60(x) } else { sin_to_30(90.0 - x) }
}

/// The angle from 0 to 90, and the signs of its sine and its cosine.
fn quadrant(x: f64) -> (f64, f64, f64) {
    let x = x % 360.0;
    let (mut angle, mut sine, mut cosine) = (x.abs(), if x < 0.0 { -1.0 } else { 1.0 }, 1.0);
    if angle > 180.0 {
        (angle, sine) = (360.0 - angle, -sine);
    }
    if angle > 90.0 {
        (angle, cosine) = (180.0 - angle, -1.0);
    }
    (angle, sine, cosine)
}

fn sind(x: f64) -> f64 {
    let (angle, sign, _) = quadrant(x);
    sign * sin_of_quadrant(angle)
}

fn cosd(x: f64) -> f64 {
    let (angle, _, sign) = quadrant(x);
    sign * cos_of_quadrant(angle)
}

fn tand(x: f64) -> f64 {
    let (angle, sine, cosine) = quadrant(x);
    let of_45 = sin_of_quadrant(45.0) / cos_of_quadrant(45.0);
    // There is no negative zero.
    sine * cosine * (sin_of_quadrant(angle) / cos_of_quadrant(angle) / of_45) + 0.0
}

fn cotd(x: f64) -> f64 {
    let (angle, sine, cosine) = quadrant(x);
    let of_45 = cos_of_quadrant(45.0) / sin_of_quadrant(45.0);
    sine * cosine * (cos_of_quadrant(angle) / sin_of_quadrant(angle) / of_45) + 0.0
}

fn asind(x: f64) -> f64 {
    let of_quadrant = |x: f64| match x <= 0.5 {
        true => x.asin() / 0.5_f64.asin() * 30.0,
        false => 90.0 - x.acos() / 0.5_f64.acos() * 60.0,
    };
    if x < 0.0 { -of_quadrant(-x) } else { of_quadrant(x) }
}

fn acosd(x: f64) -> f64 {
    match x {
        x if x < 0.0 => 90.0 + asind(-x),
        x if x <= 0.5 => 90.0 - x.asin() / 0.5_f64.asin() * 30.0,
        x => x.acos() / 0.5_f64.acos() * 60.0,
    }
}

/// Radians as degrees, where an eighth of a turn is 45.
fn arc(radians: f64) -> f64 {
    radians / 1_f64.atan() * 45.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_known_are_exact() {
        assert_eq!(
            [0.0, 30.0, 90.0, 150.0, 180.0, 210.0, -30.0, 390.0].map(sind),
            [0.0, 0.5, 1.0, 0.5, 0.0, -0.5, -0.5, 0.5]
        );
        assert_eq!([0.0, 60.0, 90.0, 120.0, 180.0, -60.0].map(cosd), [1.0, 0.5, 0.0, -0.5, -1.0, 0.5]);
        assert_eq!([0.0, 45.0, 135.0, 180.0, 225.0].map(tand), [0.0, 1.0, -1.0, 0.0, 1.0]);
        assert_eq!([45.0, 90.0, 135.0].map(cotd), [1.0, 0.0, -1.0]);
        assert_eq!([0.5, 1.0, -0.5].map(asind), [30.0, 90.0, -30.0]);
        assert_eq!([0.5, 0.0, -0.5, -1.0].map(acosd), [60.0, 90.0, 120.0, 180.0]);
        assert_eq!(arc(1_f64.atan()), 45.0);
    }
}
