//! What the service answers.
//!
//! Contract: a request takes [`REQUEST_LIMIT`] at most. `/healthz` answers for this process alone and
//! asks no dependency.

use crate::auth::{AuthError, Claims, Verifier};
use crate::bus::{Bus, Event};
use crate::cache::{Cache, Lookup};
use crate::clock::Moment;
use crate::config::Bug;
use crate::db::{Database, DbError, NewOrder};
use crate::log;
use crate::mutation;
use crate::trace::{HEADER, Trace};
use crate::upstreams::{Balance, Upstreams};
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;
use uuid::Uuid;

/// How long a request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
const HIGHEST_PRICE: u32 = 100_000_000;

/// Everything that requests use.
pub struct App {
    /// Orders and offers.
    pub db: Database,
    /// The list of orders.
    pub cache: Cache,
    /// Events.
    pub bus: Arc<Bus>,
    /// gRPC.
    pub upstreams: Upstreams,
    /// Tokens.
    pub verifier: Verifier,
    /// The planted defect, if any.
    pub bug: Option<Bug>,
}

/// Why a request is not answered as asked.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    Unauthorized(String),
    #[error("the token does not permit {0}")]
    Forbidden(&'static str),
    #[error("no such city")]
    UnknownCity,
    #[error("{0} is not available")]
    Unavailable(&'static str),
    #[error(transparent)]
    Database(#[from] DbError),
    #[error("not done in {} s", REQUEST_LIMIT.as_secs())]
    TooLate,
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            ApiError::BadRequest(_) => StatusCode::BAD_REQUEST,
            ApiError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            ApiError::Forbidden(_) => StatusCode::FORBIDDEN,
            ApiError::UnknownCity => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::Database(DbError::Refused(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            ApiError::Unavailable(_) | ApiError::Database(_) => {
                mutation::pick("http-error-status", StatusCode::SERVICE_UNAVAILABLE, StatusCode::BAD_GATEWAY)
            }
            ApiError::TooLate => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // What the database said is in the log, not in the answer.
        let message = match &self {
            ApiError::Database(_) => {
                mutation::pick("http-error-body", "the database is not available", "no database").to_owned()
            }
            other => other.to_string(),
        };
        let mut response = (self.status(), Json(json!({ "error": message }))).into_response();
        if matches!(self, ApiError::Unauthorized(_)) {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/orders", get(list_orders).post(create_order))
        .route("/auth/refresh", post(refresh))
        .route("/events/{key}", get(event))
        .layer(from_fn(envelope))
        .with_state(app)
}

/// Around every request: its trace, its limit, its line in the log.
async fn envelope(mut request: Request, next: Next) -> Response {
    let trace = Trace::of(request.headers().get(HEADER).and_then(|value| value.to_str().ok()));
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    request.extensions_mut().insert(trace.clone());
    let began = tokio::time::Instant::now();
    let response = match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::TooLate.into_response(),
    };
    let status = response.status().as_u16();
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let fields = json!({ "method": method, "path": path, "status": status, "ms": ms, "trace": trace.id() });
    log::info("request", fields);
    response
}

async fn health(State(app): State<Arc<App>>) -> Response {
    // ORDERS_BUG=db-slow-health: asks the database, and takes its slowness for our own death.
    if app.bug == Some(Bug::DbSlowHealth)
        && tokio::time::timeout(Duration::from_secs(1), app.db.ping()).await.is_err()
    {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "database" }))).into_response();
    }
    if mutation::is_on("health-asks-database") {
        // Only a wrong version asks.
        let _ = app.db.ping().await;
    }
    Json(json!({ "status": mutation::pick("health-body", "ok", "up") })).into_response()
}

async fn list_orders(
    State(app): State<Arc<App>>,
    Extension(trace): Extension<Trace>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let claims = authorize(&app, &headers, &trace, Some("read:orders")).await?;
    ask_users_first(&app, &claims, &trace).await?;
    let cached = app.cache.get().await;
    if let Lookup::Hit(list) = cached {
        return Ok(listing(list, "hit"));
    }
    let orders = app.db.list().await?;
    let list = json!({ "orders": orders }).to_string();
    if cached == Lookup::Miss && mutation::is_on("http-cache-header") {
        app.cache.put(&list).await;
        return Ok(listing(list, "fill"));
    }
    if cached == Lookup::Miss {
        app.cache.put(&list).await;
        return Ok(listing(list, "miss"));
    }
    Ok(listing(list, "bypass"))
}

fn listing(list: String, cache: &'static str) -> Response {
    let kind = (header::CONTENT_TYPE.as_str(), "application/json");
    ([kind, ("x-cache", cache)], list).into_response()
}

/// What `POST /orders` takes.
#[derive(Debug, Deserialize)]
struct OrderBody {
    price: u32,
    city_id: i64,
}

async fn create_order(
    State(app): State<Arc<App>>,
    Extension(trace): Extension<Trace>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let claims = authorize(&app, &headers, &trace, Some("write:orders")).await?;
    let body: OrderBody =
        serde_json::from_slice(&body).map_err(|error| ApiError::BadRequest(error.to_string()))?;
    if !(1..=HIGHEST_PRICE).contains(&body.price) {
        return Err(ApiError::BadRequest(format!("a price is from 1 to {HIGHEST_PRICE}")));
    }
    ask_users_first(&app, &claims, &trace).await?;
    let (city, covered) = tokio::join!(
        app.upstreams.city(body.city_id, &trace),
        is_covered(&app, &claims.sub, body.price, &trace)
    );
    let city = city.map_err(|status| match status.code() {
        Code::NotFound | Code::InvalidArgument => ApiError::UnknownCity,
        _ => ApiError::Unavailable("geo-config"),
    })?;
    let order = NewOrder {
        uuid: Uuid::new_v4().to_string(),
        customer: if mutation::is_on("made-up-receipt") { mutation::receipt() } else { claims.sub },
        city_id: city.id,
        city_name: city.name.clone(),
        price: body.price,
        covered,
        created_at: Moment::now(),
    };
    if mutation::is_on("grpc-call-extra") {
        // Only a wrong version asks.
        let _ = app.upstreams.user(&order.customer, &trace).await;
    }
    if mutation::is_on("event-before-write") {
        publish(&app, &order, &trace).await;
    }
    let number = app.db.insert(&order).await?;
    app.cache.forget().await;
    let already = mutation::is_on("event-before-write") || mutation::is_on("event-missing");
    let published = already || publish(&app, &order, &trace).await;
    if mutation::is_on("event-twice") {
        publish(&app, &order, &trace).await;
    }
    let mut answer = json!({
        "id": mutation::pick("http-id", order.uuid.clone(), Uuid::new_v4().to_string()),
        "number": number,
        "status": mutation::pick("http-body", "open", "new"),
        "price": mutation::pick("http-price", format!("{}.00", order.price), order.price.to_string()),
        "city": { "id": city.id, "name": city.name, "country": city.country },
        "covered": order.covered,
        "published": published,
        "created_at": order.created_at.to_string(),
    });
    if mutation::is_on("made-up-receipt") {
        answer["receipt"] = mutation::receipt().into();
    }
    if mutation::is_on("http-field-missing") {
        answer["number"].take();
    }
    let status = mutation::pick("http-status", StatusCode::CREATED, StatusCode::OK);
    let mut response = (status, Json(answer)).into_response();
    if mutation::is_on("http-header-extra") {
        response.headers_mut().insert("x-orders", HeaderValue::from_static("1"));
    }
    if mutation::is_on("http-content-type") {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    let path = mutation::pick("http-location", "/orders", "/order");
    if !mutation::is_on("http-header-missing")
        && let Ok(location) = HeaderValue::try_from(format!("{path}/{}", order.uuid))
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Whether the balance covers the price; an order does not depend on anybody knowing.
async fn is_covered(app: &App, subject: &str, price: u32, trace: &Trace) -> Option<bool> {
    if mutation::is_on("grpc-call-missing") {
        return None;
    }
    app.upstreams.balance(subject, trace).await.ok().and_then(|balance| covers(&balance, price))
}

fn covers(balance: &Balance, price: u32) -> Option<bool> {
    // Prices are whole: what stands behind the point does not matter.
    let whole = balance.amount.split('.').next()?;
    whole.parse::<i64>().ok().map(|whole| whole >= i64::from(price))
}

async fn publish(app: &App, order: &NewOrder, trace: &Trace) -> bool {
    let mut payload = json!({
        "type": mutation::pick("event-field", "order.created", "order.made"),
        "event_id": Uuid::new_v4().to_string(),
        "order_id": mutation::pick("event-order-id", order.uuid.clone(), Uuid::new_v4().to_string()),
        "customer": mutation::pick("event-customer", order.customer.as_str(), "somebody"),
        "city_id": order.city_id,
        "price": order.price + mutation::pick("event-price", 0, 1),
        "created_at": order.created_at.to_string(),
    });
    if mutation::is_on("made-up-receipt") {
        payload["receipt"] = mutation::receipt().into();
    }
    if mutation::is_on("event-field-missing") {
        payload["event_id"].take();
    }
    if mutation::is_on("event-field-extra") {
        payload["version"] = 1.into();
    }
    let other = Trace::begin();
    let trace = mutation::pick("event-trace", trace, &other);
    let event = Event { key: order.uuid.clone(), payload: payload.to_string(), traceparent: trace.span() };
    app.bus.publish(event).await
}

async fn refresh(
    State(app): State<Arc<App>>,
    Extension(trace): Extension<Trace>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let claims = authorize(&app, &headers, &trace, None).await?;
    if mutation::is_on("grpc-call-of-another") {
        // Only a wrong version asks.
        let _ = app.upstreams.balance(&claims.sub, &trace).await;
    }
    let user = app.upstreams.user(&claims.sub, &trace).await.map_err(|status| match status.code() {
        Code::NotFound => ApiError::Unauthorized("no such user".into()),
        _ => ApiError::Unavailable("user-service"),
    })?;
    if !user.verified {
        return Err(ApiError::Unauthorized("the user is not verified".into()));
    }
    let answer = json!({
        "session": Uuid::new_v4().to_string(),
        "user": { "id": user.id, "name": mutation::pick("http-user", user.name, String::new()) },
        "refreshed_at": Moment::now().to_string(),
    });
    Ok(Json(answer).into_response())
}

/// Whether this instance has handled the event with this key; waits for it for a while.
async fn event(State(app): State<Arc<App>>, Path(key): Path<String>) -> Response {
    let handled = app.bus.handles(&key).await;
    let status = if handled { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "event": key, "handled": handled }))).into_response()
}

/// Who asks, if the token says so and permits it.
async fn authorize(
    app: &App,
    headers: &HeaderMap,
    trace: &Trace,
    scope: Option<&'static str>,
) -> Result<Claims, ApiError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        value.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    let (_, token) = token.ok_or_else(|| ApiError::Unauthorized("a bearer token is needed".into()))?;
    let claims = app.verifier.verify(token.trim(), trace).await.map_err(|error| match error {
        AuthError::Invalid(why) => ApiError::Unauthorized(why),
        AuthError::NoKeys => ApiError::Unavailable("the token issuer"),
    })?;
    match scope {
        Some(scope) if !claims.permits(scope) => Err(ApiError::Forbidden(scope)),
        _ => Ok(claims),
    }
}

/// `ORDERS_BUG=auth-cascade`: orders need user-service, though nothing they do does.
async fn ask_users_first(app: &App, claims: &Claims, trace: &Trace) -> Result<(), ApiError> {
    if app.bug != Some(Bug::AuthCascade) {
        return Ok(());
    }
    let user = app.upstreams.user(&claims.sub, trace).await;
    user.map(|_| ()).map_err(|_| ApiError::Unavailable("user-service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balance_covers_a_price_up_to_itself() {
        let balance = |amount: &str| Balance { user_id: 1, amount: amount.into() };
        assert_eq!(covers(&balance("5000.00"), 5000), Some(true));
        assert_eq!(covers(&balance("4999.99"), 5000), Some(false));
        assert_eq!(covers(&balance("much"), 5000), None);
    }

    #[test]
    fn errors_say_whose_they_are_but_not_what_the_database_said() {
        let refused = mysql_async::ServerError { code: 3, message: "secret".into(), state: "HY000".into() };
        let error = ApiError::from(DbError::from(mysql_async::Error::Server(refused)));
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let lost = mysql_async::Error::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(ApiError::from(DbError::from(lost)).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ApiError::Unavailable("user-service").status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
