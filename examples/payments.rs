//! A payment service: however often a client sends `POST /charges`, the card is charged once.
//!
//! ```sh
//! cargo run --example payments
//! ```
//!
//! It prints what to try. `PAYMENTS_LISTEN` chooses another address than 127.0.0.1:8080, `ONCED_SERVER`
//! a server of onced other than the one that it starts for itself.

#[path = "support/mod.rs"]
mod support;

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use onced::client::Held;
use onced::http::{Idempotency, Scope};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// What a client asks for.
#[derive(Deserialize)]
struct Order {
    card: String,
    cents: u64,
}

/// What the card network did.
#[derive(Clone, Serialize)]
struct Charge {
    id: String,
    card: String,
    cents: u64,
    attempt: u32,
}

/// The card network, which is slow, fails now and then, and really charges.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<Charges>>);

#[derive(Default)]
struct Charges {
    done: Vec<Charge>,
    calls: u64,
}

enum Declined {
    /// For good.
    NoMoney,
    /// Try again.
    Down,
}

impl Network {
    async fn charge(&self, order: Order, held: Held) -> Result<Charge, Declined> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut charges = self.0.lock().expect("nobody panics here");
        charges.calls += 1;
        match order.card.as_str() {
            "no-money" => Err(Declined::NoMoney),
            "flaky" if held.attempt == 1 => Err(Declined::Down),
            _ => {
                let charge = Charge {
                    id: format!("ch_{}", charges.done.len() + 1),
                    card: order.card,
                    cents: order.cents,
                    attempt: held.attempt,
                };
                charges.done.push(charge.clone());
                Ok(charge)
            }
        }
    }
}

/// `POST /charges`. It need not know of retries: the layer keeps them away from it.
async fn charge(
    State(network): State<Network>,
    Extension(held): Extension<Held>,
    Json(order): Json<Order>,
) -> Response {
    match network.charge(order, held).await {
        Ok(charge) => {
            let location = [(header::LOCATION, format!("/charges/{}", charge.id))];
            (StatusCode::CREATED, location, Json(charge)).into_response()
        }
        // A 4xx is an outcome, and a retry gets the same.
        Err(Declined::NoMoney) => {
            (StatusCode::PAYMENT_REQUIRED, "the card has no money\n").into_response()
        }
        // A 5xx is not stored: a retry tries again.
        Err(Declined::Down) => {
            (StatusCode::BAD_GATEWAY, "the card network is down\n").into_response()
        }
    }
}

/// `GET /charges`: what the network did.
async fn list(State(network): State<Network>) -> Response {
    let charges = network.0.lock().expect("nobody panics here");
    let calls = ("x-network-calls", charges.calls.to_string());
    let headers = HeaderMap::from_iter([(
        calls.0.parse().expect("a header's name"),
        calls.1.parse().expect("a number"),
    )]);
    (headers, Json(charges.done.clone())).into_response()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Two customers that choose the same key do not get each other's responses. In earnest, an outer layer
    // finds out who it is, and `Scope::of` takes that from the request's extensions.
    let once = Idempotency::new(support::client()?, Scope::header("x-api-key"))
        .documentation("https://example.com/docs/idempotency");
    let app = Router::new()
        .route("/charges", get(list).post(charge))
        .route_layer(once.clone())
        .with_state(Network::default());
    let address = std::env::var("PAYMENTS_LISTEN");
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:8080")).await?;
    let url = format!("http://{}/charges", listener.local_addr()?);
    println!(
        "payments are at {url}; in another terminal, as often as you like:

  curl -i {url} -H 'X-Api-Key: me' -H 'Idempotency-Key: \"order-17\"' \\
    --json '{{\"card\": \"visa\", \"cents\": 1250}}'

Then with another amount; with the card \"no-money\", or \"flaky\", and a new key; or many at once.
What was charged: curl {url}"
    );
    axum::serve(listener, app)
        .with_graceful_shutdown(async {
            let _or_killed = tokio::signal::ctrl_c().await;
        })
        .await?;
    // Those whose clients hung up are still charged, and that is stored.
    once.idle().await;
    println!("{:?}", once.counts());
    Ok(())
}
