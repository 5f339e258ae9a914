//! Files that end, files that grow, and files that are wrong.

use std::io::Write;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tidewire_types::SqlType;

use super::*;
use crate::{ColumnSource, Options};

fn spec(paths: &str, encode: &str, options: &[(&str, &str)]) -> SourceSpec {
    let column = |name: &str, sql_type, source| Column { name: name.into(), sql_type, source };
    let pairs = options.iter().copied().chain([("path", paths)]);
    SourceSpec {
        name: "f".into(),
        columns: vec![
            column("id", SqlType::Int8, ColumnSource::Value),
            column("word", SqlType::Text, ColumnSource::Value),
            column("at", SqlType::Int8, ColumnSource::Position),
        ],
        options: Options::new(pairs.map(|(name, value)| (name.to_string(), value.to_string()))).unwrap(),
        format: Some(FormatSpec { format: "PLAIN".into(), encode: encode.into(), options: Options::default() }),
        bad_record: BadRecord::DeadLetter,
    }
}

/// Polls until the reader is finished or has brought `n` rows; the ids, and the last batch.
fn ids(reader: &mut dyn SourceReader, n: usize, bytes_max: usize) -> (Vec<i64>, Batch) {
    let mut ids = vec![];
    loop {
        let batch = reader.poll(Duration::from_secs(5), bytes_max).unwrap();
        ids.extend(batch.rows.column(0).as_primitive::<Int64Type>().values());
        if batch.finished || ids.len() >= n {
            return (ids, batch);
        }
    }
}

#[test]
fn lines_of_several_files_are_records_and_can_be_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.json"), folder.path().join("b.json"));
    fs::write(&a, "{\"id\": 1}\n\n{\"id\": 2}\r\n{\"id\": \"x\"}\n{\"id\": 3}").unwrap();
    fs::write(&b, "{\"id\": 4}\n").unwrap();
    let paths = format!("{}, {}", a.display(), b.display());
    let source = File.create(spec(&paths, "JSON", &[])).unwrap();
    for bytes_max in [1, 15, 1 << 20] {
        let mut reader = source.read(source.start().unwrap(), vec![0, 2], ReadMode::Follow).unwrap();
        let (found, last) = ids(&mut *reader, usize::MAX, bytes_max);
        assert!(last.finished);
        assert_eq!(found.iter().sum::<i64>(), 10, "{found:?}");
    }
    let mut reader = source.read(source.start().unwrap(), vec![0, 2], ReadMode::Follow).unwrap();
    let batch = reader.poll(Duration::ZERO, 1 << 20).unwrap();
    assert_eq!(batch.positions, source.end().unwrap());
    assert_eq!(batch.rows.column(1).as_primitive::<Int64Type>().values(), &[0, 11, 34, 0]);
    let dead: Vec<_> = batch.dead_letters.iter().map(|d| (d.position, d.error.as_str())).collect();
    assert_eq!(dead, [(22, "column \"id\": invalid input syntax for type bigint: \"x\"")]);

    let until = ReadMode::Until([(Split(0), 22)].into());
    let mut reader = source.read([(Split(0), 11)].into(), vec![0], until).unwrap();
    assert_eq!(ids(&mut *reader, usize::MAX, 1 << 20).0, [2]);
}

#[test]
fn a_followed_file_is_read_as_it_grows() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    let source = File.create(spec(&path, "JSON", &[("follow", "true")])).unwrap();
    let mut reader = source.read(source.start().unwrap(), vec![0], ReadMode::Follow).unwrap();
    assert_eq!(reader.poll(Duration::ZERO, 100).unwrap().rows.num_rows(), 0);
    file.write_all(b"{\"id\": 1}\n{\"id\"").unwrap();
    assert_eq!(ids(&mut *reader, 1, 100).0, [1]);
    assert_eq!(source.end().unwrap(), [(Split(0), 10)].into());
    assert_eq!(reader.poll(Duration::ZERO, 100).unwrap().rows.num_rows(), 0);
    file.write_all(b": 2}\n").unwrap();
    reader.set_projection(vec![0, 1]);
    let (found, last) = ids(&mut *reader, 1, 100);
    assert_eq!((found, last.rows.num_columns()), (vec![2], 2));
}

#[test]
fn csv_has_a_header_and_quoted_line_feeds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    fs::write(&path, "id,word\n1,\"two\nlines\"\n2,plain\n").unwrap();
    let source = File.create(spec(&path.display().to_string(), "CSV", &[("csv.without_header", "false")])).unwrap();
    for bytes_max in [1, 1 << 20] {
        let mut reader = source.read(source.start().unwrap(), vec![0, 1], ReadMode::Follow).unwrap();
        let (found, last) = ids(&mut *reader, usize::MAX, bytes_max);
        assert_eq!((found, last.dead_letters), (vec![1, 2], vec![]));
    }
}

#[test]
fn what_is_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing").display().to_string();
    let error = File.create(spec(&missing, "JSON", &[])).unwrap_err();
    assert_eq!(
        (error.state(), error.message()),
        (SqlState::UndefinedObject, format!("could not read file \"{missing}\": entity not found").as_str(),)
    );
    let path = folder.path().join("a.json");
    fs::write(&path, "{\"id\": 1}\nnonsense\n").unwrap();
    let spec = SourceSpec { bad_record: BadRecord::Fail, ..spec(&path.display().to_string(), "JSON", &[]) };
    let source = File.create(spec).unwrap();
    let mut reader = source.read(source.start().unwrap(), vec![0], ReadMode::Follow).unwrap();
    let error = reader.poll(Duration::ZERO, 100).unwrap_err();
    assert!(error.message().ends_with("at byte 10"), "{error}");
}
