//! Opens the ports, and says in words why one cannot be opened.

use std::io::ErrorKind;

use tokio::net::TcpListener;

use crate::failure::Failure;

/// Listens on `address` (host:port). `option` is how the user chooses another one.
pub async fn listen(address: &str, option: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let failure = Failure::new(format!("cannot listen on {address}: {}", reason(&error)));
        match error.kind() {
            ErrorKind::AddrInUse => {
                failure.with_hint(format!("Is another Tidewire running? Choose another port with {option}."))
            }
            _ => failure.with_hint(format!("{option} takes an address of this machine, such as 127.0.0.1:7432.")),
        }
    })
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "the port is in use".to_owned(),
        ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        ErrorKind::PermissionDenied => "not permitted (ports below 1024 are the system's)".to_owned(),
        ErrorKind::InvalidInput => "not a host and a port".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_and_a_bad_address_are_told_apart() {
        let taken = listen("127.0.0.1:0", "--listen").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let in_use = listen(&address, "--listen").await.unwrap_err().to_string();
        assert!(in_use.contains("the port is in use\nhint: Is another Tidewire running?"), "{in_use}");
        for bad in ["7432", "127.0.0.1:99999", ""] {
            let refused = listen(bad, "--listen").await.unwrap_err().to_string();
            assert!(refused.contains("cannot listen on") && refused.contains("--listen takes an address"), "{refused}");
        }
    }
}
