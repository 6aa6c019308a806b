package File::Compare;
use strict;
use warnings;
use Exporter 'import';

our @EXPORT_OK = qw(compare_text);

# 0 if all lines are alike but for how they end, 1 if some are not, -1 if a file cannot be read.
sub compare_text {
    my ($one, $other) = @_;
    open(my $left, '<:raw', $one) or return -1;
    open(my $right, '<:raw', $other) or return -1;
    while (defined(my $line = <$left>)) {
        my $beside = <$right>;
        return 1 unless defined $beside;
        s/[\r\n]+\z// for $line, $beside;
        return 1 if $line ne $beside;
    }
    return eof($right) ? 0 : 1;
}

1;
