//! The connector as the engine uses it.

#[cfg(test)]
mod mock;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod real;
