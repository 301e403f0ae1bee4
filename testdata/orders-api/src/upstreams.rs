//! The three gRPC upstreams: clients generated from `specs/orders/proto/all_upstreams.pb`.
//!
//! Contract: every call carries the request's trace and a deadline of [`LIMIT`], and is made once.

use crate::log;
use crate::mutation;
use crate::trace::{HEADER, Trace};
use serde_json::json;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// The generated clients and messages, nested as their packages are.
mod proto {
    pub mod geo_config {
        tonic::include_proto!("in_driver.geo_config");
    }
    pub mod users {
        tonic::include_proto!("in_driver.users");
    }
    pub mod balance {
        tonic::include_proto!("in_driver.balance");
    }
}

pub use proto::balance::Balance;
pub use proto::geo_config::City;
pub use proto::users::User;

use proto::balance::{GetBalanceRequest, balance_service_client::BalanceServiceClient};
use proto::geo_config::{GetCityRequest, geo_config_service_client::GeoConfigServiceClient};
use proto::users::{GetUserRequest, user_service_client::UserServiceClient};

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(2);

/// One upstream's connection.
#[derive(Debug)]
struct Upstream {
    name: &'static str,
    endpoint: Endpoint,
    /// Not connected until the first call, or replaced by a connected one when warmed.
    channel: RwLock<Channel>,
}

/// All three.
#[derive(Debug)]
pub struct Upstreams {
    geo: Upstream,
    users: Upstream,
    balance: Upstream,
}

impl Upstream {
    fn new(name: &'static str, url: &str) -> Result<Upstream, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(LIMIT);
        let channel = RwLock::new(endpoint.connect_lazy());
        Ok(Upstream { name, endpoint, channel })
    }

    async fn warm(&self) {
        match self.endpoint.connect().await {
            Ok(channel) => *self.channel.write().unwrap_or_else(PoisonError::into_inner) = channel,
            Err(error) => {
                log::warn("not connected yet", json!({ "to": self.name, "why": error.to_string() }))
            }
        }
    }

    fn channel(&self) -> Channel {
        self.channel.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The call's result, logged where it failed.
    async fn within<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        let result = match tokio::time::timeout(LIMIT, call).await {
            Ok(result) => result.map(tonic::Response::into_inner),
            Err(_) => Err(Status::new(Code::DeadlineExceeded, "no answer in time")),
        };
        if let Err(status) = &result {
            let code = format!("{:?}", status.code());
            log::warn("upstream", json!({ "to": self.name, "code": code, "why": status.message() }));
        }
        result
    }
}

impl Upstreams {
    /// Channels that have not connected yet.
    ///
    /// # Errors
    /// When an address makes no sense.
    pub fn new(geo: &str, users: &str, balance: &str) -> Result<Upstreams, tonic::transport::Error> {
        Ok(Upstreams {
            geo: Upstream::new("geo-config", geo)?,
            users: Upstream::new("user-service", users)?,
            balance: Upstream::new("balance-api", balance)?,
        })
    }

    /// Connects ahead of the first request.
    pub async fn warm(&self) {
        tokio::join!(self.geo.warm(), self.users.warm(), self.balance.warm());
    }

    /// A city by id.
    ///
    /// # Errors
    /// The upstream's status, or that there was none in time.
    pub async fn city(&self, id: i64, trace: &Trace) -> Result<City, Status> {
        let id = id + mutation::pick("grpc-field", 0, 1);
        let mut client = GeoConfigServiceClient::new(self.geo.channel());
        self.geo.within(client.get_city(request(GetCityRequest { id }, trace))).await
    }

    /// The user behind a token's subject.
    ///
    /// # Errors
    /// The upstream's status, or that there was none in time.
    pub async fn user(&self, subject: &str, trace: &Trace) -> Result<User, Status> {
        let subject = mutation::pick("grpc-subject", subject, "user-0").to_owned();
        let mut client = UserServiceClient::new(self.users.channel());
        self.users.within(client.get(request(GetUserRequest { subject }, trace))).await
    }

    /// What a token's subject has.
    ///
    /// # Errors
    /// The upstream's status, or that there was none in time.
    pub async fn balance(&self, subject: &str, trace: &Trace) -> Result<Balance, Status> {
        let mut client = BalanceServiceClient::new(self.balance.channel());
        let subject = mutation::pick("grpc-balance-subject", subject, "user-0").to_owned();
        let subject = match mutation::is_on("made-up-receipt") {
            true => format!("{subject}:{}", mutation::receipt()),
            false => subject,
        };
        let message = GetBalanceRequest { subject };
        self.balance.within(client.get(request(message, trace))).await
    }
}

fn request<T>(message: T, trace: &Trace) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(LIMIT);
    if mutation::is_on("grpc-metadata-extra") {
        request.metadata_mut().insert("x-caller", tonic::metadata::MetadataValue::from_static("orders"));
    }
    if mutation::is_on("grpc-metadata-missing") {
        return request;
    }
    // A span is hexadecimal digits and dashes: it always parses.
    let other = Trace::begin();
    let trace = mutation::pick("grpc-trace", trace, &other);
    if let Ok(span) = trace.span().parse() {
        request.metadata_mut().insert(HEADER, span);
    }
    request
}
