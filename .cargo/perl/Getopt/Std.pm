package Getopt::Std;
use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(getopt getopts);

# Letters followed by a colon take a value; into the hash, or into the caller's $main::opt_x.
sub getopts {
    my ($letters, $into) = @_;
    my $known = 1;
    while (@ARGV && $ARGV[0] =~ /\A-(.)(.*)\z/s) {
        my ($letter, $rest) = ($1, $2);
        if ($ARGV[0] eq '--') { shift @ARGV; last }
        my $at = index($letters, $letter);
        if ($at < 0 || $letter eq ':') { warn "Unknown option: $letter\n"; $known = 0 }
        my $value = 1;
        if ($at >= 0 && substr($letters, $at + 1, 1) eq ':') {
            shift @ARGV;
            $value = length $rest ? $rest : shift @ARGV;
        } elsif (length $rest) {
            $ARGV[0] = "-$rest";
        } else {
            shift @ARGV;
        }
        next if $at < 0;
        if ($into) { $into->{$letter} = $value } else { no strict 'refs'; ${"main::opt_$letter"} = $value }
    }
    return $known;
}

sub getopt { my ($letters, $into) = @_; $letters =~ s/(.)/$1:/gs; return getopts($letters, $into) }

1;
