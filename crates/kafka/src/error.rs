//! Errors of Kafka as users read them: which broker, which topic, what to do.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaConfRes;
use tidewire_types::{SqlError, SqlState, closest};

use crate::events::Seen;
use crate::settings::Settings;

/// A client that could not be made: a property that librdkafka does not know, or does not take.
pub(crate) fn config(error: &KafkaError) -> SqlError {
    let invalid = |text: String| SqlError::new(SqlState::InvalidParameterValue, text);
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => {
            invalid(format!("librdkafka has no property \"{name}\"")).with_hint(
                "Names after \"properties.\" are those of librdkafka's configuration, which differ in places from the Java client's.",
            )
        }
        KafkaError::ClientConfig(_, words, name, _) => {
            invalid(format!("invalid value for option \"properties.{name}\"")).with_detail(says(words))
        }
        KafkaError::ClientCreation(words) => invalid("the properties do not fit together".to_owned())
            .with_detail(says(words)),
        other => SqlError::internal(other),
    }
}

/// No broker answered in time.
pub(crate) fn no_answer(settings: &Settings, seen: &Seen) -> SqlError {
    if let Some(words) = &seen.authentication {
        return SqlError::new(
            SqlState::InvalidPassword,
            format!("Kafka at \"{}\" refuses the login", settings.brokers),
        )
        .with_detail(says(words))
        .with_hint("Check properties.sasl.username, properties.sasl.password and properties.sasl.mechanism.");
    }
    let error = SqlError::new(
        SqlState::ConnectionFailure,
        format!("no Kafka broker answers at \"{}\"", settings.brokers),
    )
    .with_hint(
        "Check properties.bootstrap.server, and properties.security.protocol where the broker wants TLS or a login.",
    );
    match &seen.last {
        Some(words) => error.with_detail(says(words)),
        None => error.with_detail(format!("Waited {} ms.", settings.connect_timeout.as_millis())),
    }
}

/// The topic is not there; `others` are.
pub(crate) fn no_topic<'a>(settings: &Settings, others: impl IntoIterator<Item = &'a str>) -> SqlError {
    let topic = &settings.topic;
    let error = SqlError::new(SqlState::UndefinedObject, format!("topic \"{topic}\" does not exist"))
        .with_detail(format!("Kafka at \"{}\" has no such topic.", settings.brokers));
    match closest(topic, others) {
        Some(near) => error.with_hint(format!("Perhaps you meant \"{near}\".")),
        None => error,
    }
}

/// What a broker answered about the topic.
pub(crate) fn topic(settings: &Settings, code: RDKafkaErrorCode) -> SqlError {
    let topic = &settings.topic;
    let (state, text) = match code {
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            (SqlState::InsufficientPrivilege, format!("permission denied for topic \"{topic}\""))
        }
        RDKafkaErrorCode::InvalidTopic => (SqlState::InvalidName, format!("\"{topic}\" cannot be a topic's name")),
        _ => (SqlState::ConnectionFailure, format!("cannot read topic \"{topic}\"")),
    };
    SqlError::new(state, text).with_detail(says(&code.to_string()))
}

/// A question to the brokers about a topic that is known to exist.
pub(crate) fn request(settings: &Settings, what: &str, error: &KafkaError) -> SqlError {
    let text = format!("cannot ask Kafka for {what} of topic \"{}\"", settings.topic);
    SqlError::new(SqlState::ConnectionFailure, text).with_detail(format!(
        "The brokers are \"{}\". {}",
        settings.brokers,
        says(&words(error))
    ))
}

/// A call that needs no broker, and failed.
pub(crate) fn local(what: &str, error: &KafkaError) -> SqlError {
    SqlError::internal(format!("librdkafka cannot {what}: {}", words(error)))
}

/// The words of an error, without the crate's wrapping where there is a code.
pub(crate) fn words(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}

fn says(words: &str) -> String {
    format!("librdkafka says: {}.", words.trim_end_matches('.'))
}

/// A position that the topic no longer holds, or does not hold yet.
pub(crate) fn lost(
    settings: &Settings,
    partition: i32,
    offset: i64,
    holds: Option<(i64, i64)>,
    words: &str,
) -> SqlError {
    let (topic, name) = (&settings.topic, &settings.name);
    let text =
        format!("source \"{name}\" cannot go on: topic \"{topic}\" has no offset {offset} in partition {partition}");
    let error = SqlError::new(SqlState::ObjectNotInPrerequisiteState, text);
    match holds {
        Some((low, high)) if offset < low => error
            .with_detail(format!(
                "Records up to offset {low} were deleted before they were read; the earliest now there is {low}, the next to come {high}."
            ))
            .with_hint(format!("To go on without them: ALTER SOURCE {name} SKIP LOST RECORDS. To keep this from happening, give the topic a longer retention.")),
        Some((low, high)) => error
            .with_detail(format!("The partition now holds the offsets from {low} up to {high}, exclusive."))
            .with_hint(format!("Was the topic deleted and created again? ALTER SOURCE {name} SKIP LOST RECORDS has the source read the new one from its first record on; its views keep what they contain.")),
        None => error.with_detail(says(words)),
    }
}
