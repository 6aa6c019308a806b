//! Work on files that is asked to stop.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Inputs that never end, so that whatever the machine does there is something to stop.
#[test]
fn a_replay_that_is_stopped_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let home = tempfile::tempdir().unwrap();
        let input = home.path().join("in");
        fs::create_dir(&input).unwrap();
        let clicks = input.join("clickstream.ndjson");
        assert!(Command::new("mkfifo").arg(&clicks).status().unwrap().success());
        let replay = Command::new(env!("CARGO_BIN_EXE_stagecast"))
            .current_dir(home.path())
            .args(["replay", "--input", "in", "--output", "out"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut feed = File::create(&clicks).unwrap();
        let mut asked = false;
        for second in 0u64.. {
            let (hours, minutes, seconds) = (second / 3_600 % 24, second / 60 % 60, second % 60);
            let ts = format!("2025-01-{:02}T{hours:02}:{minutes:02}:{seconds:02}Z", 1 + second / 86_400);
            let line = format!(r#"{{"customer_id":"c{}","type":"page_viewed","ts":"{ts}"}}"#, second % 50);
            if writeln!(feed, "{line}").is_err() {
                break;
            }
            // Something was written by then, whatever is still in the pipe.
            if second == 20_000 {
                assert!(fs::read_dir(home.path()).unwrap().count() > 1, "no place to write to yet");
                kill_process(Pid::from_child(&replay), signal).unwrap();
                asked = true;
            }
        }
        assert!(asked, "it ended by itself");
        let ended = replay.wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains("stopped by a signal; nothing was written"), "{said}");
        let left: Vec<_> =
            fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["in"]);
    }
}
