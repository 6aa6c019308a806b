#![no_main]
stagecast_fuzz::fuzz!("moves");
