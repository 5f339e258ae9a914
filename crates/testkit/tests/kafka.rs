//! The fixture starts a real broker, and a broker that was killed comes back with its data.

use tidewire_testkit::kafka::{BROKER, Kafka};

#[test]
fn a_broker_starts_is_killed_and_comes_back() {
    if std::env::var(BROKER).is_ok_and(|b| !b.trim().is_empty()) {
        let kafka = Kafka::start().unwrap();
        assert!(!kafka.is_own());
        assert!(kafka.kill().is_err());
        return;
    }
    let kafka = Kafka::start().unwrap_or_else(|e| panic!("{e}"));
    assert!(kafka.is_own());
    let bootstrap = kafka.bootstrap().to_string();
    let topics = |args: &[&str]| kafka.tool("topics", &[&["--bootstrap-server", &bootstrap], args].concat());
    topics(&["--create", "--topic", "t", "--partitions", "3"]).unwrap();
    kafka.kill().unwrap();
    kafka.restart().unwrap();
    assert!(topics(&["--describe", "--topic", "t"]).unwrap().contains("PartitionCount: 3"));
}
