//! A server for an example to talk to: the one at `ONCED_SERVER`, or one of its own in this process.

use std::error::Error;

use onced::address::Address;
use onced::client::Client;
use onced::config::RawSettings;
use onced::server::Server;

/// A client of that server; call it within a runtime.
pub(crate) fn client() -> Result<Client, Box<dyn Error>> {
    let address = match std::env::var("ONCED_SERVER") {
        Ok(address) => address.parse()?,
        Err(_) => start()?,
    };
    println!("onced is at {address}");
    Ok(Client::new(address))
}

/// Starts a server on a free port; it ends with this process.
fn start() -> Result<Address, Box<dyn Error>> {
    let settings = RawSettings {
        listen: Some(vec!["127.0.0.1:0".to_owned()]),
        ..RawSettings::default()
    };
    let server = Server::bind(settings.check()?.server()?)?;
    let address = server.addresses()[0].clone();
    std::thread::spawn(move || server.run(std::future::pending()));
    Ok(address)
}
