//! HTTP/2 around the calls: how a connection begins, its tasks, and bodies of our own.
//!
//! Contract: tasks of a connection end with it.

use super::codec;
use crate::link::Stream;
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;

/// What every HTTP/2 connection of a client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest metadata of one call.
pub const METADATA_MAX: u32 = 1 << 20;

/// Why a call of ours failed: whatever it was, with its cause.
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
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    /// Starts a task.
    pub fn start<F>(&self, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            task.await;
        });
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
        // Dropped outside the lock: a task's end may start another.
        let tasks = std::mem::take(&mut *self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(tasks);
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

/// A body that we send.
pub enum Outgoing {
    /// At hand.
    Whole(VecDeque<Frame<Bytes>>),
    /// At hand, but the stream stays open after it.
    Open(VecDeque<Frame<Bytes>>),
    /// Made while it is sent.
    Made(tokio::sync::mpsc::Receiver<Frame<Bytes>>),
}

impl Outgoing {
    /// A body that is at hand, with its trailers.
    pub fn whole(body: Bytes, trailers: Option<HeaderMap>) -> Self {
        let mut frames = VecDeque::new();
        if !body.is_empty() {
            frames.push_back(Frame::data(body));
        }
        frames.extend(trailers.map(Frame::trailers));
        Outgoing::Whole(frames)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        match &mut *self {
            Outgoing::Whole(frames) => Poll::Ready(frames.pop_front().map(Ok)),
            Outgoing::Open(frames) => match frames.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                // The asker ends it: its connection's task drops this body.
                None => Poll::Pending,
            },
            Outgoing::Made(frames) => frames.poll_recv(cx).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Outgoing::Whole(frames) if frames.is_empty())
    }
}
