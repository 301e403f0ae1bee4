//! One half of a call on its way from one connection to the other.
//!
//! Contract: data, trailers and the end go on in the order in which they came. Of what the receiver
//! cannot take yet one frame is held and no more is read, so that flow control reaches the sender. A
//! half that breaks says at which end, and for which reason.

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

/// What a half is made of.
pub enum Piece {
    /// Part of the body.
    Data(Bytes),
    /// What ends it, where something does.
    Trailers(HeaderMap),
}

/// One half of a call as it arrives.
pub struct Arriving {
    from: RecvStream,
    data_over: bool,
    over: bool,
}

impl Arriving {
    /// A half of which nothing was read.
    pub fn new(from: RecvStream) -> Self {
        let over = from.is_end_stream();
        Arriving { from, data_over: over, over }
    }

    /// Whether all of it was read.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Its next piece; none after the last.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, h2::Error>>> {
        if !self.data_over {
            match ready!(self.from.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Refused only for a stream that is gone.
                    let _ = self.from.flow_control().release_capacity(data.len());
                    self.over = self.from.is_end_stream();
                    self.data_over = self.over;
                    return Poll::Ready(Some(Ok(Piece::Data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_over = true,
            }
        }
        if self.over {
            return Poll::Ready(None);
        }
        let trailers = ready!(self.from.poll_trailers(cx));
        self.over = trailers.is_ok();
        Poll::Ready(trailers.map(|trailers| trailers.map(Piece::Trailers)).transpose())
    }
}

/// What there is to see of a half that goes by.
pub enum Seen<'a> {
    /// Part of the body, before it goes on.
    Data(&'a Bytes),
    /// The end, before it goes on, with its trailers.
    End(Option<&'a HeaderMap>),
}

/// Where a half broke.
pub enum Broken {
    /// Where it comes from.
    Sender(h2::Error),
    /// Where it goes to.
    Receiver(Reason),
}

/// One half of a call on its way.
pub struct Passing {
    from: Arriving,
    to: SendStream<Bytes>,
    held: Option<Bytes>,
    done: bool,
}

impl Passing {
    /// Gives on what has arrived and what is still to come. What has arrived is not held back.
    pub fn new(
        arrived: VecDeque<Piece>,
        from: Arriving,
        to: SendStream<Bytes>,
        done: bool,
    ) -> Result<Self, h2::Error> {
        let mut passing = Passing { from, to, held: None, done };
        let mut arrived = arrived.into_iter().peekable();
        while let Some(piece) = arrived.next() {
            match piece {
                Piece::Data(data) => passing.give(data, arrived.peek().is_none())?,
                Piece::Trailers(trailers) => passing.end(trailers)?,
            }
        }
        Ok(passing)
    }

    fn give(&mut self, data: Bytes, last: bool) -> Result<(), h2::Error> {
        let end = last && self.from.is_over();
        self.done |= end;
        self.to.send_data(data, end)
    }

    fn end(&mut self, trailers: HeaderMap) -> Result<(), h2::Error> {
        self.done = true;
        self.to.send_trailers(trailers)
    }

    /// Ends it at its receiver.
    pub fn reset(&mut self, reason: Reason) {
        self.done = true;
        self.to.send_reset(reason);
    }

    /// Carries it on until it has gone on, or broken.
    pub fn poll(&mut self, cx: &mut Context<'_>, mut seen: impl FnMut(Seen<'_>)) -> Poll<Result<(), Broken>> {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(gone) = self.to.poll_reset(cx) {
            self.done = true;
            return Poll::Ready(Err(Broken::Receiver(given_up(gone))));
        }
        let receiver = |error: h2::Error| Broken::Receiver(reason(&error));
        while !self.done {
            if self.held.is_some() {
                ready!(self.poll_room(cx))?;
            }
            if let Some(data) = self.held.take() {
                if self.from.is_over() {
                    seen(Seen::End(None));
                }
                self.give(data, true).map_err(receiver)?;
                continue;
            }
            match ready!(self.from.poll(cx)) {
                Some(Ok(Piece::Data(data))) => {
                    seen(Seen::Data(&data));
                    // More than a claim to something would keep room from others while this waits.
                    self.to.reserve_capacity(data.len().min(1));
                    self.held = Some(data);
                }
                Some(Ok(Piece::Trailers(trailers))) => {
                    seen(Seen::End(Some(&trailers)));
                    self.end(trailers).map_err(receiver)?;
                }
                Some(Err(error)) => {
                    self.done = true;
                    return Poll::Ready(Err(Broken::Sender(error)));
                }
                None => {
                    seen(Seen::End(None));
                    self.give(Bytes::new(), true).map_err(receiver)?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until the receiver takes some of what is held.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.held.as_ref().is_none_or(Bytes::is_empty) {
            return Poll::Ready(Ok(()));
        }
        while self.to.capacity() == 0 {
            match ready!(self.to.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(Broken::Receiver(reason(&error)))),
                None => return Poll::Ready(Err(Broken::Receiver(Reason::CANCEL))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The reason with which the other side of a call is reset after this.
pub fn reason(error: &h2::Error) -> Reason {
    match error.reason() {
        // The server went away before it looked at the call: it may be made again elsewhere.
        Some(Reason::NO_ERROR) if error.is_go_away() => Reason::REFUSED_STREAM,
        Some(reason) => reason,
        None => Reason::INTERNAL_ERROR,
    }
}

/// Why who is waited for no longer waits.
pub fn given_up(reset: Result<Reason, h2::Error>) -> Reason {
    // One whose connection broke gave up like one who says so.
    reset.unwrap_or(Reason::CANCEL)
}
