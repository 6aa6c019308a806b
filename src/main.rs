//! The program: parse the command line, do it, turn an error into an exit code.

fn main() {}
