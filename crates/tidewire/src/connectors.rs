//! What `WITH (connector = '..')` may name.

use std::sync::LazyLock;

use tidewire_connect::Connector;

/// All connectors of this binary: Kafka, and those that need no other system.
pub static CONNECTORS: LazyLock<Vec<&'static dyn Connector>> = LazyLock::new(|| {
    let kafka: &'static dyn Connector = &tidewire_kafka::Kafka;
    [kafka].into_iter().chain(tidewire_connect::CONNECTORS.iter().copied()).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<_> = CONNECTORS.iter().map(|connector| connector.name()).collect();
        assert_eq!(names.first(), Some(&"kafka"));
        let n_names = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n_names);
    }
}
