//! The error that reaches a user: an SQLSTATE, one short line, and what to do about it.

use std::fmt;

/// Shorthand for results whose error a user reads.
pub type Result<T, E = SqlError> = std::result::Result<T, E>;

macro_rules! sql_states {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// The SQLSTATEs that Tidewire uses, by PostgreSQL's condition names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum SqlState { $($(#[$doc])* #[doc = $code] $name,)* }
        impl SqlState {
            /// The five characters of the SQLSTATE.
            pub const fn code(self) -> &'static str {
                match self { $(SqlState::$name => $code,)* }
            }
        }
    };
}

sql_states! {
    ConnectionFailure = "08006",
    ProtocolViolation = "08P01",
    FeatureNotSupported = "0A000",
    CardinalityViolation = "21000",
    StringDataRightTruncation = "22001",
    NumericValueOutOfRange = "22003",
    NullValueNotAllowed = "22004",
    InvalidDatetimeFormat = "22007",
    DatetimeFieldOverflow = "22008",
    InvalidTimeZoneDisplacement = "22009",
    SubstringError = "22011",
    DivisionByZero = "22012",
    InvalidPrecedingOrFollowingSize = "22013",
    InvalidArgumentForWidthBucket = "2201G",
    InvalidArgumentForNtile = "22014",
    IntervalFieldOverflow = "22015",
    InvalidArgumentForNthValue = "22016",
    InvalidArgumentForLogarithm = "2201E",
    InvalidArgumentForPowerFunction = "2201F",
    InvalidRegularExpression = "2201B",
    InvalidRowCountInLimitClause = "2201W",
    InvalidRowCountInResultOffsetClause = "2201X",
    InvalidParameterValue = "22023",
    InvalidTextRepresentation = "22P02",
    InvalidBinaryRepresentation = "22P03",
    BadCopyFileFormat = "22P04",
    CharacterNotInRepertoire = "22021",
    InvalidEscapeSequence = "22025",
    DataException = "22000",
    InvalidSqlJsonSubscript = "22033",
    NonNumericSqlJsonItem = "22036",
    SingletonSqlJsonItemRequired = "22038",
    SqlJsonArrayNotFound = "22039",
    SqlJsonMemberNotFound = "2203A",
    SqlJsonNumberNotFound = "2203B",
    SqlJsonObjectNotFound = "2203C",
    ArraySubscriptError = "2202E",
    NotNullViolation = "23502",
    UniqueViolation = "23505",
    CheckViolation = "23514",
    InvalidCursorState = "24000",
    ActiveSqlTransaction = "25001",
    NoActiveSqlTransaction = "25P01",
    InFailedSqlTransaction = "25P02",
    InvalidSqlStatementName = "26000",
    InvalidAuthorization = "28000",
    InvalidPassword = "28P01",
    DependentObjectsStillExist = "2BP01",
    SerializationFailure = "40001",
    InvalidCursorName = "34000",
    InvalidCatalogName = "3D000",
    InvalidSchemaName = "3F000",
    SyntaxError = "42601",
    InsufficientPrivilege = "42501",
    GroupingError = "42803",
    DatatypeMismatch = "42804",
    WrongObjectType = "42809",
    UndefinedColumn = "42703",
    UndefinedFunction = "42883",
    UndefinedTable = "42P01",
    UndefinedParameter = "42P02",
    UndefinedObject = "42704",
    AmbiguousColumn = "42702",
    AmbiguousFunction = "42725",
    AmbiguousParameter = "42P08",
    DuplicateColumn = "42701",
    DuplicateTable = "42P07",
    DuplicateAlias = "42712",
    DuplicateCursor = "42P03",
    DuplicatePreparedStatement = "42P05",
    DuplicateObject = "42710",
    InvalidColumnReference = "42P10",
    InvalidTableDefinition = "42P16",
    InvalidColumnDefinition = "42611",
    IndeterminateDatatype = "42P18",
    WindowingError = "42P20",
    InvalidRecursion = "42P19",
    InvalidName = "42602",
    CannotCoerce = "42846",
    DiskFull = "53100",
    OutOfMemory = "53200",
    TooManyConnections = "53300",
    ProgramLimitExceeded = "54000",
    StatementTooComplex = "54001",
    ObjectNotInPrerequisiteState = "55000",
    ObjectInUse = "55006",
    QueryCanceled = "57014",
    AdminShutdown = "57P01",
    CannotConnectNow = "57P03",
    IoError = "58030",
    UndefinedFile = "58P01",
    DuplicateFile = "58P02",
    InternalError = "XX000",
    DataCorrupted = "XX001",
}

/// An error for a user: what PostgreSQL's ErrorResponse carries.
///
/// The message is lower-case, short, without a full stop, quotes identifiers and names the kind of object; detail and
/// hint are sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError(Box<Parts>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
    state: SqlState,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    context: Option<String>,
    position: Option<usize>,
}

impl SqlError {
    /// An error with its primary line.
    pub fn new(state: SqlState, message: impl Into<String>) -> SqlError {
        let message = message.into();
        SqlError(Box::new(Parts { state, message, detail: None, hint: None, context: None, position: None }))
    }

    /// `0A000`: `what` is not supported (yet). The message reads "{what} is not supported".
    pub fn unsupported(what: impl fmt::Display) -> SqlError {
        SqlError::new(SqlState::FeatureNotSupported, format!("{what} is not supported"))
    }

    /// `XX000`: a bug in Tidewire, or something that cannot happen.
    pub fn internal(message: impl fmt::Display) -> SqlError {
        SqlError::new(SqlState::InternalError, format!("internal error: {message}"))
    }

    /// Adds a DETAIL sentence.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> SqlError {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds a HINT sentence.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> SqlError {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds a CONTEXT line: what was being read when it happened.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> SqlError {
        self.0.context = Some(context.into());
        self
    }

    /// Sets the place in the statement's text: characters, the first is 1, as PostgreSQL counts.
    #[must_use]
    pub fn at(mut self, position: usize) -> SqlError {
        self.0.position = Some(position);
        self
    }

    /// Replaces the position (for a caller that knows where the statement starts in a longer text).
    #[must_use]
    pub fn with_position(mut self, position: Option<usize>) -> SqlError {
        self.0.position = position;
        self
    }

    /// The SQLSTATE.
    pub fn state(&self) -> SqlState {
        self.0.state
    }

    /// The primary line.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The DETAIL sentence.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The HINT sentence.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The CONTEXT line.
    pub fn context(&self) -> Option<&str> {
        self.0.context.as_deref()
    }

    /// The place in the statement's text, in characters from 1.
    pub fn position(&self) -> Option<usize> {
        self.0.position
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for SqlError {}

impl From<arrow::error::ArrowError> for SqlError {
    fn from(error: arrow::error::ArrowError) -> SqlError {
        use arrow::error::ArrowError as E;
        let state = match &error {
            E::DivideByZero => return SqlError::new(SqlState::DivisionByZero, "division by zero"),
            E::ArithmeticOverflow(_) => SqlState::NumericValueOutOfRange,
            E::CastError(_) | E::ParseError(_) => SqlState::InvalidTextRepresentation,
            E::InvalidArgumentError(_) | E::ComputeError(_) => SqlState::DataException,
            E::MemoryError(_) => SqlState::OutOfMemory,
            E::IoError(..) => SqlState::IoError,
            _ => SqlState::InternalError,
        };
        SqlError::new(state, error.to_string())
    }
}
