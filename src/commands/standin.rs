//! `faultbox __standin`: be a stand-in until killed. Started by the live environment.

use crate::cli::StandInArgs;
use crate::exit_code;
use faultbox_engine::standin::{StandInOptions, process};
use std::net::{Ipv4Addr, SocketAddr};

/// Runs it.
pub fn run(args: StandInArgs) -> u8 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let options = StandInOptions {
        data: args.data,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
        env: std::env::vars().collect(),
    };
    let ended = runtime.and_then(|runtime| runtime.block_on(process::run(&args.kind, options, args.control)));
    match ended {
        Ok(()) => exit_code::OK,
        Err(error) => {
            crate::terminal::notice(&format!("stand-in {}: {error}", args.kind));
            exit_code::HOST
        }
    }
}
