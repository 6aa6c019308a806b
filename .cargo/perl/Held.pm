# What is printed to a handle that is tied to this is held in a variable. A file in memory would do, but needs a module
# that is written in C.
package Held;
use strict;
use warnings;

sub TIEHANDLE { my ($class, $text) = @_; $$text = ''; return bless {text => $text}, $class }

sub PRINT { my $self = shift; ${$self->{text}} .= join($, // '', @_) . ($\ // ''); return 1 }

sub PRINTF { my ($self, $format, @values) = @_; ${$self->{text}} .= sprintf($format, @values); return 1 }

1;
