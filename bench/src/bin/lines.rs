//! A shape and a number of lines in, log files in the kubelet's layout out: at once, or at a rate as it passes, and then
//! the rate that was reached as well.
#![allow(clippy::print_stdout, reason = "a program, not a service")]

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser as _;
use jiff::{SignedDuration, Timestamp};
use sluice_bench::layout;
use sluice_bench::logfile::LogFile;
use sluice_bench::shape::{Shape, Writer};

/// How often lines are written at a rate.
const TICK: Duration = Duration::from_millis(10);
/// Bytes written at once when there is no rate.
const CHUNK: usize = 1 << 20;
/// Time that the lines of a file span when there is no rate.
const SPAN: SignedDuration = SignedDuration::from_mins(10);

/// Writes numbered lines into the log files of pods.
#[derive(clap::Parser)]
struct Args {
    /// Folder of the pods' log folders; made where it is missing.
    #[arg(long)]
    log_root: PathBuf,
    /// What a line looks like.
    #[arg(long)]
    shape: Shape,
    /// Number of pods, each with one container.
    #[arg(long, default_value_t = 50)]
    files: usize,
    /// Lines in all.
    #[arg(long)]
    lines: u64,
    /// Lines per second over all files; absent: all at once.
    #[arg(long)]
    rate: Option<u64>,
    /// At a rate: a file is rotated when it has so many bytes.
    #[arg(long)]
    rotate: Option<u64>,
    /// At once: files of each container, all but the last two compressed.
    #[arg(long, default_value_t = 1)]
    generations: u64,
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    match args.rate {
        Some(rate) => paced(&args, rate),
        None => at_once(&args),
    }
}

fn create(args: &Args, number: usize) -> io::Result<LogFile> {
    LogFile::create(layout::log_file(&args.log_root, number))
}

/// Each file's lines span the last ten minutes.
fn at_once(args: &Args) -> io::Result<()> {
    let begin = Timestamp::now() - SPAN;
    let mut number = 0;
    for index in 0..args.files {
        let end = args.lines * (index as u64 + 1) / args.files as u64;
        let each = ((end - number) / args.generations).max(1);
        let mut generation_end = number + each;
        let step = SPAN / i32::try_from((end - number).max(1)).unwrap_or(i32::MAX);
        // Clocks are not regular: a part of each step is scattered, or timestamps compress too well.
        let scatter = u64::try_from(step.as_nanos()).unwrap_or(1).max(1);
        let mut at = begin;
        let mut file = create(args, index)?;
        let mut writer = Writer::new(args.shape, index as u64);
        let mut out = Vec::with_capacity(CHUNK);
        while number < end {
            let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
            let late = SignedDuration::from_nanos((hash % scatter).cast_signed());
            writer.append(number, at + late, &mut out)?;
            number += 1;
            at += step;
            let is_over = number == generation_end && end - number >= each;
            if out.len() + args.shape.size() > CHUNK || number == end || is_over {
                file.write(&out)?;
                out.clear();
            }
            if is_over {
                file.rotate(at)?;
                generation_end += each;
            }
        }
        file.compress()?;
    }
    Ok(())
}

/// Each line is one write to the next file in turn, as a runtime does it.
fn paced(args: &Args, rate: u64) -> io::Result<()> {
    let mut files = (0..args.files)
        .map(|index| create(args, index))
        .collect::<io::Result<Vec<_>>>()?;
    let mut writer = Writer::new(args.shape, 0);
    let mut line = Vec::with_capacity(args.shape.size());
    let begin = Instant::now();
    let mut number = 0;
    let mut turn = 0;
    while number < args.lines {
        let millis = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = (millis.saturating_mul(rate) / 1000).min(args.lines);
        while number < due {
            line.clear();
            writer.append(number, Timestamp::now(), &mut line)?;
            if let Some(file) = files.get_mut(turn) {
                file.write(&line)?;
                if args.rotate.is_some_and(|bytes| file.written() >= bytes) {
                    file.rotate(Timestamp::now())?;
                }
            }
            turn = (turn + 1) % args.files;
            number += 1;
        }
        thread::sleep(TICK);
    }
    let millis = begin.elapsed().as_millis().max(1);
    println!("{}", u128::from(number) * 1000 / millis);
    Ok(())
}
