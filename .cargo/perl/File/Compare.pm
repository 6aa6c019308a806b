package File::Compare;
use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(compare);
our @EXPORT_OK = qw(compare compare_text);

sub compare { return differ(sub { $_[0] eq $_[1] }, @_) }

sub compare_text {
    my ($one, $other, $unlike) = @_;
    $unlike ||= sub {
        my @lines = @_;
        s/[\r\n]+\z// for @lines;
        return $lines[0] ne $lines[1];
    };
    return differ(sub { !$unlike->(@_) }, $one, $other);
}

# 0 if all lines are alike, 1 if some are not, -1 if a file cannot be read.
sub differ {
    my ($alike, $one, $other) = @_;
    open(my $left, '<:raw', $one) or return -1;
    open(my $right, '<:raw', $other) or return -1;
    while (defined(my $line = <$left>)) {
        my $beside = <$right>;
        return 1 unless defined $beside && $alike->($line, $beside);
    }
    return eof($right) ? 0 : 1;
}

1;
