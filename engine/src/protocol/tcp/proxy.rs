//! The way through: two pumps and the turn that both see.

use super::{bytes, greeting, request};
use crate::fault::rule::Effect;
use crate::link::{Dial, Link, Pending, Stream};
use crate::protocol::ProtocolError;
use crate::protocol::http::kept::Kept;
use crate::protocol::http::wire::{Inbox, Side};
use faultbox_bundle_format::Value;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, WriteHalf};

/// How often a slowed answer goes on.
const SLOW_STEP: Duration = Duration::from_millis(50);

/// Carries one connection.
pub async fn proxy(client: Stream, dial: Arc<dyn Dial>, link: Arc<Link>) -> Result<(), ProtocolError> {
    let connection = link.next_connection();
    let upstream = match dial.dial().await {
        Ok(stream) => Side::new(stream),
        Err(error) => {
            link.ask(connection, greeting()).failed(&format!("cannot connect: {error}"));
            return Err(error.into());
        }
    };
    let turns = Turns { link, connection, current: Mutex::new(None) };
    let Side { read: mut from_client, write: mut to_client } = Side::new(client);
    let Side { read: mut from_upstream, write: mut to_upstream } = upstream;
    tokio::try_join!(
        turns.asking(&mut from_client, &mut to_upstream),
        turns.answering(&mut from_upstream, &mut to_client),
    )?;
    Ok(())
}

/// One turn. Journals itself when it goes.
struct Turn {
    pending: Option<Pending>,
    effect: Option<Effect>,
    asked: Kept,
    answered: Kept,
    paused: bool,
    left: u64,
    /// The server ended its half.
    closed: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(mut pending) = self.pending.take() else { return };
        pending.revise(bytes(&self.asked));
        if self.answered.is_empty() {
            if self.closed {
                pending.failed("the connection was closed without an answer");
            } else {
                pending.one_way();
            }
            return;
        }
        let mut answer = vec![("bytes".to_owned(), self.answered.value())];
        if self.closed {
            // Which side closes first is a matter of timing.
            answer.push(("closes".to_owned(), Value::Bool(true).volatile()));
        }
        pending.answered(&Value::Map(answer));
    }
}

struct Turns {
    link: Arc<Link>,
    connection: u64,
    current: Mutex<Option<Turn>>,
}

impl Turns {
    fn current(&self) -> MutexGuard<'_, Option<Turn>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, request: crate::link::Request) -> Turn {
        let pending = self.link.ask(self.connection, request);
        let effect = pending.firing().map(|firing| firing.effect.clone());
        let left = match effect {
            Some(Effect::ResetAfter { bytes }) => bytes,
            _ => u64::MAX,
        };
        let (asked, answered) = (Kept::default(), Kept::default());
        Turn { pending: Some(pending), effect, asked, answered, paused: false, left, closed: false }
    }

    async fn asking(&self, from: &mut Inbox, to: &mut WriteHalf<Stream>) -> Result<(), ProtocolError> {
        while from.more().await? {
            let data = from.buffer.split();
            {
                let mut current = self.current();
                let goes_on = current.as_ref().is_some_and(|turn| turn.answered.is_empty());
                if !goes_on {
                    // The turn before is journaled first.
                    drop(current.take());
                    *current = Some(self.begin(request(&Kept::default())));
                }
                if let Some(turn) = current.as_mut() {
                    turn.asked.push(&data);
                    cut_if_dropped(turn)?;
                }
            }
            to.write_all(&data).await?;
            to.flush().await?;
        }
        Ok(to.shutdown().await?)
    }

    async fn answering(&self, from: &mut Inbox, to: &mut WriteHalf<Stream>) -> Result<(), ProtocolError> {
        while from.more().await? {
            let mut data = from.buffer.split();
            let (effect, pause) = {
                let mut current = self.current();
                let turn = current.get_or_insert_with(|| self.begin(greeting()));
                cut_if_dropped(turn)?;
                let first = !std::mem::replace(&mut turn.paused, true);
                match turn.effect {
                    Some(Effect::Delay(pause)) if first => (turn.effect.clone(), Some(pause)),
                    _ => (turn.effect.clone(), None),
                }
            };
            if let Some(pause) = pause {
                self.link.pause(pause).await;
            }
            let cut = self.answer(&effect, &mut data);
            write(to, &data, &effect, &self.link).await?;
            if cut {
                return Err(ProtocolError::Cut);
            }
        }
        if let Some(turn) = self.current().as_mut() {
            turn.closed = true;
        }
        Ok(to.shutdown().await?)
    }

    /// Takes note of a part of the answer, as it will be seen. True where the connection is
    /// cut after it.
    fn answer(&self, effect: &Option<Effect>, data: &mut bytes::BytesMut) -> bool {
        let mut current = self.current();
        let Some(turn) = current.as_mut() else { return false };
        if *effect == Some(Effect::Corrupt) {
            let offset = turn.answered.len();
            for (at, byte) in data.iter_mut().enumerate() {
                if (offset + at as u64).is_multiple_of(64) {
                    *byte ^= 0x5a;
                }
            }
        }
        let cut = data.len() as u64 >= turn.left;
        data.truncate(usize::try_from(turn.left).unwrap_or(usize::MAX));
        turn.left -= data.len() as u64;
        turn.answered.push(data);
        if cut {
            if let Some(mut pending) = turn.pending.take() {
                pending.revise(bytes(&turn.asked));
                pending.dropped();
            }
        } else if let Some(pending) = &mut turn.pending {
            // More may follow, but the scenario need not wait for it.
            pending.settled();
        }
        cut
    }
}

fn cut_if_dropped(turn: &mut Turn) -> Result<(), ProtocolError> {
    if turn.effect != Some(Effect::Drop) {
        return Ok(());
    }
    if let Some(mut pending) = turn.pending.take() {
        pending.revise(bytes(&turn.asked));
        pending.dropped();
    }
    Err(ProtocolError::Cut)
}

async fn write(
    to: &mut WriteHalf<Stream>,
    data: &[u8],
    effect: &Option<Effect>,
    link: &Arc<Link>,
) -> std::io::Result<()> {
    let Some(Effect::Slow { bytes_per_second }) = effect else {
        to.write_all(data).await?;
        return to.flush().await;
    };
    let steps = 1000 / SLOW_STEP.as_millis() as u64;
    let step = usize::try_from((bytes_per_second / steps).max(1)).unwrap_or(usize::MAX);
    for piece in data.chunks(step) {
        link.pause(SLOW_STEP).await;
        to.write_all(piece).await?;
        to.flush().await?;
    }
    Ok(())
}
