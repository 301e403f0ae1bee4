//! HTTP/2 around the calls: connections, their tasks, and bodies.
//!
//! Contract: tasks of a connection end with it. A body that passes through is journaled
//! before its end is given on.

use super::{codec, value};
use crate::link::{BoxFuture, Pending, Stream};
use crate::protocol::http::kept::Kept;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming};
use prost_reflect::MessageDescriptor;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What every HTTP/2 connection of a client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest metadata of one call.
pub const METADATA_MAX: u32 = 1 << 20;

/// Why a call failed: whatever it was, with its cause (from which HTTP/2 takes the reason of a
/// reset).
#[derive(Debug)]
pub struct CallError(Box<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for CallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

macro_rules! call_error_from {
    ($($error:ty),*) => {
        $(impl From<$error> for CallError {
            fn from(error: $error) -> Self {
                CallError(error.into())
            }
        })*
    };
}

call_error_from!(
    hyper::Error,
    std::io::Error,
    String,
    &str,
    http::Error,
    http::status::InvalidStatusCode,
    prost::DecodeError,
    codec::FrameError
);

/// Runs the tasks of one connection.
#[derive(Clone)]
pub struct Tasks(Where);

#[derive(Clone)]
enum Where {
    /// Each where the runtime puts it.
    Apart(Arc<Mutex<JoinSet<()>>>),
    /// All within one, by its crew.
    Within(mpsc::UnboundedSender<BoxFuture<'static, ()>>),
}

impl Default for Tasks {
    fn default() -> Self {
        Tasks(Where::Apart(Arc::default()))
    }
}

impl Tasks {
    /// Tasks that run where their crew is polled: what they tell each other then crosses no thread,
    /// which costs a call more than all the rest of it.
    pub fn within() -> (Self, Crew) {
        let (sender, fresh) = mpsc::unbounded_channel();
        (Tasks(Where::Within(sender)), Crew { fresh, running: FuturesUnordered::new() })
    }

    /// Starts a task.
    pub fn start<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let task = async move {
            task.await;
        };
        match &self.0 {
            Where::Apart(tasks) => {
                let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
                while tasks.try_join_next().is_some() {}
                tasks.spawn(task);
            }
            // A crew that is gone has ended its connection, tasks and all.
            Where::Within(crew) => drop(crew.send(Box::pin(task))),
        }
    }

    /// Ends all of them when the guard goes.
    pub fn guard(&self) -> TasksGuard {
        TasksGuard(self.clone())
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.start(task);
    }
}

/// Ends the tasks of a connection.
pub struct TasksGuard(Tasks);

impl Drop for TasksGuard {
    fn drop(&mut self) {
        // Those within end with their crew.
        let Where::Apart(tasks) = &self.0.0 else { return };
        // Dropped outside the lock: a task's end may start another.
        let tasks = std::mem::take(&mut *tasks.lock().unwrap_or_else(PoisonError::into_inner));
        drop(tasks);
    }
}

/// Carries out the tasks of one connection within whoever polls it.
pub struct Crew {
    fresh: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Crew {
    /// Works for as long as it is polled. Cancel safe.
    pub async fn work(&mut self) {
        loop {
            tokio::select! {
                biased;
                Some(task) = self.fresh.recv() => self.running.push(task),
                Some(()) = self.running.next(), if !self.running.is_empty() => {}
                else => std::future::pending().await,
            }
        }
    }
}

/// A stream with bytes that were read from it before.
pub struct Prefixed {
    prefix: Bytes,
    stream: Stream,
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let size = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix.split_to(size));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Looks at the first bytes: the stream with them back in place, and whether they are an
/// HTTP/2 client's.
pub async fn sniff(mut stream: Stream) -> std::io::Result<(Stream, bool)> {
    let mut seen = Vec::with_capacity(PREFACE.len());
    while seen.len() < PREFACE.len() && PREFACE.starts_with(&seen) {
        let left = PREFACE.len() - seen.len();
        if (&mut stream).take(left as u64).read_buf(&mut seen).await? == 0 {
            break;
        }
    }
    let speaks = seen == PREFACE;
    Ok((Box::new(Prefixed { prefix: seen.into(), stream }), speaks))
}

/// A request's body on its way to the server.
pub struct Outbound {
    ready: VecDeque<Frame<Bytes>>,
    rest: Option<Incoming>,
    kept: Arc<Mutex<Kept>>,
}

impl Outbound {
    /// A body of what has arrived and what is still to come.
    pub fn new(ready: VecDeque<Frame<Bytes>>, rest: Option<Incoming>, kept: Arc<Mutex<Kept>>) -> Self {
        Outbound { ready, rest, kept }
    }

    /// A body that is at hand.
    pub fn whole(body: Bytes) -> Self {
        Outbound::new(VecDeque::from([Frame::data(body)]), None, Arc::default())
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        if let Some(frame) = self.ready.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(rest).poll_frame(cx));
        if let Some(Some(data)) = frame.as_ref().map(|f| f.as_ref().ok().and_then(Frame::data_ref)) {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(data);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.rest.as_ref().is_none_or(Incoming::is_end_stream)
    }
}

/// A response's body on its way to the asker.
pub enum Inbound {
    /// At hand.
    Whole(VecDeque<Frame<Bytes>>),
    /// At hand, but the stream stays open after it.
    Open(VecDeque<Frame<Bytes>>),
    /// Made while it is sent.
    Made(tokio::sync::mpsc::Receiver<Frame<Bytes>>),
    /// Passing by from the server.
    Passing(Box<Passing>),
}

impl Inbound {
    /// A body that is at hand, with its trailers.
    pub fn whole(body: Bytes, trailers: Option<HeaderMap>) -> Self {
        let mut frames = VecDeque::new();
        if !body.is_empty() {
            frames.push_back(Frame::data(body));
        }
        frames.extend(trailers.map(Frame::trailers));
        Inbound::Whole(frames)
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        match &mut *self {
            Inbound::Whole(frames) => Poll::Ready(frames.pop_front().map(Ok)),
            Inbound::Open(frames) => match frames.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                // The asker ends it: its connection's task drops this body.
                None => Poll::Pending,
            },
            Inbound::Made(frames) => frames.poll_recv(cx).map(|frame| frame.map(Ok)),
            Inbound::Passing(passing) => passing.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Inbound::Whole(frames) => frames.is_empty(),
            Inbound::Open(_) | Inbound::Made(_) => false,
            Inbound::Passing(passing) => passing.exchange.is_none(),
        }
    }
}

/// An exchange whose response passes by.
pub struct Ongoing {
    /// The exchange.
    pub pending: Pending,
    /// Type of the response's messages.
    pub output: Option<MessageDescriptor>,
}

/// A response that passes by.
pub struct Passing {
    /// The exchange, until its end has passed.
    pub exchange: Option<Ongoing>,
    /// The HTTP status.
    pub status: u16,
    /// The initial metadata.
    pub headers: HeaderMap,
    /// The response's body so far.
    pub kept: Kept,
    /// Where it comes from.
    pub incoming: Incoming,
}

impl Passing {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.kept.push(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.end(Some(trailers));
                }
            }
            Some(Err(error)) => {
                if let Some(exchange) = self.exchange.take() {
                    exchange.pending.failed(&error.to_string());
                }
            }
            None => self.end(None),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    /// Journals the end.
    pub fn end(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(Ongoing { pending, output }) = self.exchange.take() {
            let (status, trailers) = (self.status, trailers.cloned());
            let (headers, kept) = (std::mem::take(&mut self.headers), std::mem::take(&mut self.kept));
            pending.answered_later(move || {
                value::response(status, &headers, &kept, trailers.as_ref(), output.as_ref())
            });
        }
    }
}
